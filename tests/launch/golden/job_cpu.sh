#!/bin/bash

# Parameters
#SBATCH --array=0%256
#SBATCH --chdir=/store
#SBATCH --comment='scalesweep ablation'
#SBATCH --cpus-per-task=4
#SBATCH --job-name=ablation-data-0123456789
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/store/jobs/ablation-data-0123456789/%A_%a_0_log.out
#SBATCH --requeue
#SBATCH --signal=B:USR2@300
#SBATCH --time=60

# setup
trap '' USR2  # until the supervisor knows what to do with it
export PYTHONPATH=/store/code/0123456789abcdef${PYTHONPATH:+:$PYTHONPATH}

# command
export SUBMITIT_EXECUTOR=slurm
exec PYTHON -u -P -m scalesweep.launch.supervise /store/jobs/ablation-data-0123456789
