#!/bin/bash

# Parameters
#SBATCH --account=vision
#SBATCH --array=0-2,7%64
#SBATCH --chdir='/my store'
#SBATCH --comment='scalesweep ablation'
#SBATCH --constraint='ib&nvme'
#SBATCH --cpus-per-task=12
#SBATCH --dependency=afterok:12_3:15_0,aftercorr:14
#SBATCH --exclusive
#SBATCH --gres=gpu:a100:8
#SBATCH --job-name=ablation-tune-0123456789
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --mem=480500M
#SBATCH --no-kill
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --open-mode=append
#SBATCH --output='/my store/jobs/ablation-tune-0123456789/%A_%a_0_log.out'
#SBATCH --partition=main
#SBATCH --qos=high
#SBATCH --requeue
#SBATCH --reservation='study week'
#SBATCH --signal=B:USR2@300
#SBATCH --time=1440
#SBATCH --time-min=60

# setup
trap '' USR2  # until the supervisor knows what to do with it
source '/home/me/modules of the lab.sh' || exit 78
export GREETING='it'"'"'s $HOME'
export NCCL_SOCKET_IFNAME=ib0
export PYTHONPATH='/my store/code/0123456789abcdef'${PYTHONPATH:+:$PYTHONPATH}

# command
export SUBMITIT_EXECUTOR=slurm
exec PYTHON -u -P -m scalesweep.launch.supervise '/my store/jobs/ablation-tune-0123456789'
