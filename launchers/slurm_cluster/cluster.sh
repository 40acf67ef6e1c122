#!/bin/bash
# A real Slurm cluster on this machine, for rehearsals and tests.
#
#   cluster.sh up [--with-pid PID]     start it, or what of it does not run; with a PID, a watchdog
#                                      stops it when that process is gone
#   cluster.sh down | wipe             stop it | and delete its directory
#   cluster.sh status | env            nodes | the line that points a shell at it
#   cluster.sh node-kill N | node-up N         power cut of a node (n0, n1, ...), and power back
#   cluster.sh slurmd-kill N | slurmd-up N     only the node's slurmd; its jobs run on
#   cluster.sh ctl-kill | ctl-up | dbd-kill | dbd-up     slurmctld, slurmdbd
#   cluster.sh resume-nodes            give drained nodes back to the scheduler
#
# Settings, read by the first `up` and kept in the directory (all SCALESWEEP_CLUSTER_*):
#   DIR    where all of it lives [XDG_RUNTIME_DIR, TMPDIR or /tmp, /scalesweep-cluster-UID]
#   NODES [4]  GPUS, fake ones, on each [8]  CPUS [64]  MEMORY_MB [512000]
#   DBD    1: accounting by slurmdbd; 0: none [1]
#   NS     1: a namespace for every node (root); 0: plain slurmds, as any user [as root: 1]
#   PORT   first of the 1200 ports it may use [24800, or others where those are taken]
#
# Needs Debian's slurm-wlm, slurmdbd, munge and mariadb-server. Listens on loopback (slurmdbd, which
# cannot be told to, on every address), writes nothing outside its directory.
# With namespaces every node has its own host name and processes; what is mounted below DIR/mnt
# while the cluster runs is seen on all nodes.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
SELF=$HERE/$(basename "${BASH_SOURCE[0]}")
DIR=${SCALESWEEP_CLUSTER_DIR:-${XDG_RUNTIME_DIR:-${TMPDIR:-/tmp}}/scalesweep-cluster-$(id -u)}
SETTINGS=$DIR/etc/settings
USER_NAME=$(id -un)
FIRST_PORT=20000 PORTS=1200 NUM_BLOCKS=10 DEFAULT_PORT=24800
export SLURM_CONF=$DIR/etc/slurm.conf
unset "${!SLURM_@}" && export SLURM_CONF=$DIR/etc/slurm.conf  # of a job, if this runs in one

log() { echo "cluster: $*" >&2; }
die() { log "$*"; exit 2; }

# --- processes

lives() {  # process id; what only waits to be reaped is dead
  local stat
  read -r stat 2>/dev/null < "/proc/$1/stat" && [[ ${stat##*) } != [ZX]* ]]
}
alive() { [ -s "$1" ] && lives "$(<"$1")"; }

wait_for() {  # what, seconds, command: until the command succeeds
  local what=$1 deadline=$((SECONDS + $2)); shift 2
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$deadline" ] || { log "waited in vain until $what; logs: $DIR/log"; return 1; }
    sleep 0.1
  done
}

stop() {  # daemon: ask it to end, then kill it
  local file=$DIR/run/$1.pid pid i
  if alive "$file"; then
    pid=$(<"$file")
    kill "$pid" 2>/dev/null || true
    for ((i = 0; i < 100; i++)); do lives "$pid" || break; sleep 0.1; done
    kill -9 "$pid" 2>/dev/null || true
  fi
  rm -f "$file"
}

kill_daemon() {  # daemon: no time to save anything
  local file=$DIR/run/$1.pid
  alive "$file" || die "$1 does not run"
  kill -9 "$(<"$file")"
  rm -f "$file"
}

start_of() { local stat; stat=$(<"/proc/$1/stat") && stat=${stat##*) } && set -- $stat && echo "${20}"; }

# Processes of a node where it has no namespace: slurmd carries SCALESWEEP_NODE, a step daemon (whose
# environment its title overwrites) writes slurmd's log, and what jobs start carries the name of the
# node beside this cluster's SLURM_CONF.
with_environment() {  # entry, environ files
  local entry=$1; shift
  { grep -lszxF "$entry" "$@" || true; } | sed 's|/proc/\([0-9]*\)/environ|\1|'
}
slurmd_of() {
  local pid
  for pid in $(with_environment "SCALESWEEP_NODE=$DIR/$1" /proc/[0-9]*/environ); do
    [ "$(cat "/proc/$pid/comm" 2>/dev/null)" != slurmd ] || echo "$pid"
  done
}
step_daemons_of() {
  local comm
  for comm in $(grep -lsxF slurmstepd /proc/[0-9]*/comm || true); do
    readlink "${comm%comm}"fd/* 2>/dev/null | grep -qxF "$DIR/log/slurmd-$1.log" || continue
    comm=${comm#/proc/}
    echo "${comm%/comm}"
  done
}
tasks_of() {
  local found
  found=$(grep -lszxF "SLURM_CONF=$SLURM_CONF" /proc/[0-9]*/environ || true)
  # shellcheck disable=SC2086
  [ -z "$found" ] || with_environment "SLURMD_NODENAME=$1" $found
}

# --- configuration

settle() {  # the settings of this cluster: those it was made with, else those of the environment
  mkdir -p "$DIR"
  [ -O "$DIR" ] || die "$DIR belongs to somebody else"
  [ -e "$SETTINGS" ] || [ -z "$(ls -A "$DIR")" ] || die "$DIR is not empty and no cluster's directory"
  [[ ${#DIR} -le 80 && $DIR != *[[:space:]]* ]] || die "$DIR: Slurm needs a short path without spaces"
  chmod 700 "$DIR"
  [ -e "$SETTINGS" ] && return 0
  local namespaces=${SCALESWEEP_CLUSTER_NS:-}
  if [ -z "$namespaces" ]; then
    namespaces=0
    unshare --uts --mount --pid --fork true 2>/dev/null && [ "$(id -u)" = 0 ] && namespaces=1
  fi
  mkdir -p "$DIR"/{etc,log,run,state,munge,dev,spool,mnt}
  cat > "$SETTINGS" <<END
NODES=${SCALESWEEP_CLUSTER_NODES:-4}
GPUS=${SCALESWEEP_CLUSTER_GPUS:-8}
CPUS=${SCALESWEEP_CLUSTER_CPUS:-64}
MEMORY_MB=${SCALESWEEP_CLUSTER_MEMORY_MB:-512000}
DBD=${SCALESWEEP_CLUSTER_DBD:-1}
NS=$namespaces
DB_PASSWORD=$(head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n')
END
}

load_settings() {
  [ -e "$SETTINGS" ] || die "no cluster in $DIR: start it with $SELF up"
  # shellcheck disable=SC1090
  . "$SETTINGS"
  PORT=$(cat "$DIR/etc/port" 2>/dev/null || echo 0)
  CONTROLLER_PORT=$PORT DBD_PORT=$((PORT + 1)) DB_PORT=$((PORT + 2)) NODE_PORT=$((PORT + 10))
}

is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

block_is_free() {
  local port
  for port in "$1" $(($1 + 1)) $(($1 + 2)) $(seq $(($1 + 10)) $(($1 + 9 + NODES))); do
    is_free "$port" || return 1
  done
}

choose_ports() {  # none is held yet: a daemon that finds its port taken after all says so and ends
  local block begin=$((RANDOM % NUM_BLOCKS)) i
  local candidates=("$(cat "$DIR/etc/port" 2>/dev/null || echo $DEFAULT_PORT)")
  for ((i = 0; i < NUM_BLOCKS; i++)); do
    candidates+=($((FIRST_PORT + PORTS * ((begin + i) % NUM_BLOCKS))))
  done
  [ -z "${SCALESWEEP_CLUSTER_PORT:-}" ] || candidates=("$SCALESWEEP_CLUSTER_PORT")
  for block in "${candidates[@]}"; do
    if block_is_free "$block"; then echo "$block" > "$DIR/etc/port"; return 0; fi
  done
  die "ports taken: ${candidates[*]}; name others by SCALESWEEP_CLUSTER_PORT"
}

configure() {
  local i nodes="" hosts="127.0.0.1 localhost $(hostname)" list="n[0-$((NODES - 1))]" accounting text
  for ((i = 0; i < NODES; i++)); do
    # All on one address: srun in a job on several nodes hangs when each has its own.
    nodes+="NodeName=n$i NodeHostname=$([ "$NS" = 1 ] && echo "n$i" || hostname -s) NodeAddr=127.0.0.1"
    nodes+=" Port=$((NODE_PORT + i)) CPUS=$CPUS RealMemory=$MEMORY_MB"
    nodes+="$([ "$GPUS" = 0 ] || echo " Gres=gpu:$GPUS") State=UNKNOWN"$'\n'
    hosts+=$'\n'"127.0.0.1 n$i"
  done
  echo "$hosts" > "$DIR/etc/hosts"
  # Fake GPUs must be character devices, or CUDA_VISIBLE_DEVICES is never set; links to one will do.
  echo "AutoDetect=off" > "$DIR/etc/gres.conf"
  for ((i = 0; i < GPUS; i++)); do ln -sfn /dev/null "$DIR/dev/gpu$i"; done
  [ "$GPUS" = 0 ] || echo "NodeName=$list Name=gpu File=$DIR/dev/gpu[0-$((GPUS - 1))]" >> "$DIR/etc/gres.conf"
  : > "$DIR/etc/plugstack.conf"
  if [ "$DBD" = 1 ]; then
    accounting="AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$DBD_PORT
AccountingStoragePass=$DIR/munge/munge.sock
AccountingStorageTRES=gres/gpu
AccountingStoreFlags=job_comment"
  else
    accounting="AccountingStorageType=accounting_storage/none"
  fi
  text=$(<"$HERE/slurm.conf.in")
  text=${text//@DIR@/"$DIR"} text=${text//@USER@/"$USER_NAME"} text=${text//@HOST@/"$(hostname -s)"}
  text=${text//@CONTROLLER_PORT@/"$CONTROLLER_PORT"} text=${text//@ACCOUNTING@/"$accounting"}
  text=${text//@SRUN_PORTS@/"$((PORT + 100))-$((PORT + PORTS - 1))"}
  text=${text//@NODES@/"$nodes"} text=${text//@NODE_LIST@/"$list"}
  echo "$text" > "$SLURM_CONF"
  rm -f "$DIR/etc/slurmdbd.conf"
  (umask 077; cat > "$DIR/etc/slurmdbd.conf") <<END
AuthType=auth/munge
AuthInfo=socket=$DIR/munge/munge.sock
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=$DBD_PORT
SlurmUser=$USER_NAME
DebugLevel=info
LogFile=$DIR/log/slurmdbd.log
PidFile=$DIR/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$DB_PORT
StorageUser=slurm
StoragePass=$DB_PASSWORD
StorageLoc=slurm_acct_db
END
}

# --- daemons

munge_up() {
  alive "$DIR/run/munged.pid" && return 0
  [ -s "$DIR/munge/munge.key" ] || (umask 077; head -c 1024 /dev/urandom > "$DIR/munge/munge.key")
  # --force: below /tmp its parents are looser than munged likes.
  munged --force --key-file="$DIR/munge/munge.key" --socket="$DIR/munge/munge.sock" \
    --pid-file="$DIR/run/munged.pid" --log-file="$DIR/log/munged.log" \
    --seed-file="$DIR/munge/seed" --num-threads=4 2>>"$DIR/log/munged.log"
}

sql() { mariadb --no-defaults -u "$USER_NAME" --socket="$DIR/run/mariadb.sock" -e "$1"; }

db_up() {
  alive "$DIR/run/mariadbd.pid" && return 0
  [ -d "$DIR/mariadb/mysql" ] || mariadb-install-db --no-defaults --user="$USER_NAME" \
    --datadir="$DIR/mariadb" --auth-root-authentication-method=socket \
    --auth-root-socket-user="$USER_NAME" --skip-test-db >"$DIR/log/mariadb-install.log" 2>&1
  setsid mariadbd --no-defaults --user="$USER_NAME" --datadir="$DIR/mariadb" \
    --bind-address=127.0.0.1 --port="$DB_PORT" --socket="$DIR/run/mariadb.sock" \
    --pid-file="$DIR/run/mariadbd.pid" --log-error="$DIR/log/mariadb.log" --skip-log-bin \
    --innodb-buffer-pool-size=64M --innodb-log-file-size=16M --innodb-lock-wait-timeout=900 \
    --innodb-flush-log-at-trx-commit=0 </dev/null >/dev/null 2>&1 &
  disown
  wait_for "mariadb answers" 60 sql "select 1"
  sql "create database if not exists slurm_acct_db;
    grant all on slurm_acct_db.* to 'slurm'@'127.0.0.1' identified by '$DB_PASSWORD';
    grant all on slurm_acct_db.* to 'slurm'@'localhost' identified by '$DB_PASSWORD';"
}

dbd_up() {
  [ "$DBD" = 1 ] || die "this cluster has no slurmdbd"
  alive "$DIR/run/slurmdbd.pid" && return 0
  slurmdbd -s
  wait_for "slurmdbd answers" 60 sacctmgr -n list cluster
}

controller_answers() { scontrol ping | grep -q "is UP"; }
ctl_up() {
  alive "$DIR/run/slurmctld.pid" && return 0
  slurmctld
  wait_for "slurmctld answers" 30 controller_answers
}

node_up() {
  alive "$DIR/run/node-$1.pid" && return 0
  mkdir -p "$DIR/spool/$1"
  if [ "$NS" = 1 ]; then
    # The first process of a node outlives its slurmd and reaps what jobs leave behind.
    SCALESWEEP_NODE=$DIR/$1 setsid unshare --uts --mount --propagation slave --pid --fork \
      --kill-child --mount-proc bash -c '
        hostname "$1"; mount --bind "$2/etc/hosts" /etc/hosts
        slurmd -D -N "$1" >/dev/null 2>&1 &
        while :; do wait -n || sleep 0.5; done' node "$1" "$DIR" \
      </dev/null >>"$DIR/log/node-$1.out" 2>&1 &
  else
    SCALESWEEP_NODE=$DIR/$1 setsid slurmd -D -N "$1" </dev/null >>"$DIR/log/node-$1.out" 2>&1 &
  fi
  echo $! > "$DIR/run/node-$1.pid"
  disown
}

node_kill() {
  local file=$DIR/run/node-$1.pid found
  # With a namespace all processes of the node die with its first one.
  if [ "$NS" = 1 ] && alive "$file"; then kill -9 "$(<"$file")"; fi
  # Frozen first: a step daemon that saw its task die would report it.
  found=$(slurmd_of "$1"; step_daemons_of "$1")
  # shellcheck disable=SC2086
  [ -z "$found" ] || kill -STOP $found 2>/dev/null || true
  while found=$(tasks_of "$1"; slurmd_of "$1"; step_daemons_of "$1"); [ -n "$found" ]; do
    # shellcheck disable=SC2086
    kill -9 $found 2>/dev/null || true
    sleep 0.05
  done
  rm -f "$file"
}

slurmd_kill() {
  local found
  found=$(slurmd_of "$1")
  [ -n "$found" ] || die "no slurmd runs on $1"
  kill -9 $found
}

slurmd_up() {
  local first
  [ -z "$(slurmd_of "$1")" ] || return 0
  if [ "$NS" = 1 ] && alive "$DIR/run/node-$1.pid"; then
    first=$(<"$DIR/run/node-$1.pid")
    first=$(tr -d ' ' < "/proc/$first/task/$first/children")
    SCALESWEEP_NODE=$DIR/$1 nsenter --target "$first" --uts --mount --pid slurmd -N "$1"
  else
    rm -f "$DIR/run/node-$1.pid"
    node_up "$1"
  fi
}

resume_nodes() {
  local node
  for node in $(sinfo -hN -t drain,drained,draining,down,fail -o %N | sort -u); do
    scontrol update "nodename=$node" state=resume || true
  done
}

# --- the whole of it

nodes_are_idle() { [ "$(sinfo -hN -t idle,mix,alloc -o %N | sort -u | wc -l)" -ge "$NODES" ]; }

accounting_works() {
  local job
  job=$(sbatch --parsable -J probe -o /dev/null --wrap true)
  sleep 1
  [ "$(sacct -X -n -P -j "$job" -o State)" = COMPLETED ]
}

parts_up() {
  if [ "$NS" = 1 ] && ! mountpoint -q "$DIR/mnt"; then
    mount --bind "$DIR/mnt" "$DIR/mnt"
    mount --make-shared "$DIR/mnt"
  fi
  munge_up
  if [ "$DBD" = 1 ]; then db_up; dbd_up; fi
  ctl_up
  local i
  for ((i = 0; i < NODES; i++)); do node_up "n$i"; done
  wait_for "all nodes are up" 60 nodes_are_idle
  # slurmctld's first connection to a fresh database can fail for some seconds.
  if [ "$DBD" = 1 ] && [ ! -e "$DIR/etc/probed" ]; then
    wait_for "sacct shows a job" 60 accounting_works
    touch "$DIR/etc/probed"
  fi
}

start() {
  local program
  for program in slurmctld slurmd munged $([ "${SCALESWEEP_CLUSTER_DBD:-1}" = 0 ] || echo slurmdbd mariadbd); do
    command -v "$program" >/dev/null || die "$program is missing: make setup-slurm installs it"
  done
  settle
  load_settings
  if ! alive "$DIR/run/slurmctld.pid"; then
    choose_ports
    load_settings
    configure
  fi
  # A watchdog first, so that nothing outlives whoever asked for one.
  [ -z "$1" ] || watch_over "$1"
  if ! (parts_up); then
    down
    die "it did not start; logs: $DIR/log"
  fi
}

watch_over() {
  setsid "$SELF" watch "$1" "$(start_of "$1")" </dev/null >>"$DIR/log/watchdog.log" 2>&1 &
  echo $! > "$DIR/run/watchdog.pid"
  disown
}

watch() {  # process id, its start: an id may be given away again
  while [ "$(start_of "$1" 2>/dev/null)" = "$2" ]; do
    sleep 1
    [ "$(cat "$DIR/run/watchdog.pid" 2>/dev/null)" = $$ ] || return 0  # another one is in charge
  done
  log "process $1 is gone"
  down
}

down() {
  local i
  if alive "$DIR/run/watchdog.pid" && [ "$(<"$DIR/run/watchdog.pid")" != $$ ]; then
    kill -- "-$(<"$DIR/run/watchdog.pid")"  # the group that setsid made: its sleep too
  fi
  rm -f "$DIR/run/watchdog.pid"
  for ((i = 0; i < NODES; i++)); do node_kill "n$i"; done
  for i in slurmctld slurmdbd mariadbd munged; do stop "$i"; done
  if mountpoint -q "$DIR/mnt"; then umount --recursive --lazy "$DIR/mnt"; fi
}

command=${1:-}
case $command in
  up)
    [ "${2:-}" = --with-pid ] && pid=$3 || pid=""
    # One at a time, or two would choose the same ports; --close: no daemon holds the lock.
    flock --close "${TMPDIR:-/tmp}/scalesweep-cluster-$(id -u).lock" "$SELF" start "$pid"
    ;;
  start) start "$2" ;;
  env) echo "export SLURM_CONF=$SLURM_CONF" ;;
  down | wipe)
    if [ -e "$SETTINGS" ]; then
      load_settings
      down
      [ "$command" = down ] || rm -rf --one-file-system "$DIR"
    fi
    ;;
  watch | status | node-* | slurmd-* | ctl-* | dbd-* | resume-nodes)
    load_settings
    case $command in
      watch) watch "$2" "$3" ;;
      status) scontrol ping; sinfo -N -p main -o "%N %T %G %C %E" ;;
      node-kill) node_kill "$2" ;;
      node-up) node_up "$2" ;;
      slurmd-kill) slurmd_kill "$2" ;;
      slurmd-up) slurmd_up "$2" ;;
      ctl-kill) kill_daemon slurmctld ;;
      ctl-up) ctl_up ;;
      dbd-kill) kill_daemon slurmdbd ;;
      dbd-up) dbd_up ;;
      resume-nodes) resume_nodes ;;
      *) die "unknown: $command" ;;
    esac
    ;;
  *) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$SELF"; exit 2 ;;
esac
