#!/bin/sh
# Installs what cluster.sh needs on Debian or Ubuntu; does nothing where it is there already.
# None of the packages' own daemons is started, now or at the next boot: the cluster runs its own.
set -eu
PATH=$PATH:/usr/sbin:/sbin
PACKAGES="slurm-wlm slurmdbd munge mariadb-server"
SERVICES="slurmctld slurmd slurmdbd munge mariadb"
POLICY=/usr/sbin/policy-rc.d

missing=""
for program in slurmctld slurmd slurmdbd sacct munged mariadbd mariadb-install-db; do
    command -v "$program" >/dev/null || missing="$missing $program"
done
[ -n "$missing" ] || exit 0
echo "missing for a Slurm cluster on this machine:$missing"
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "as root on Debian or Ubuntu: apt-get install $PACKAGES"
    exit 2
fi
echo "installing $PACKAGES (about 400 MB on disk); their services stay off"
known=""
for service in $SERVICES; do
    if [ -e "/etc/init.d/$service" ]; then known="$known $service"; fi
done
if [ ! -e $POLICY ]; then  # an existing one is somebody's decision; services are stopped below
    trap 'rm -f $POLICY' EXIT
    printf '#!/bin/sh\nexit 101\n' > $POLICY
    chmod 755 $POLICY
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
# shellcheck disable=SC2086
apt-get install -y -q --no-install-recommends $PACKAGES
for service in $SERVICES; do
    case " $known " in *" $service "*) continue ;; esac  # it was here before: not ours to stop
    if [ -d /run/systemd/system ]; then
        systemctl disable --quiet --now "$service" || true
    elif [ -x "/etc/init.d/$service" ]; then
        "/etc/init.d/$service" stop >/dev/null 2>&1 || true
        update-rc.d "$service" disable >/dev/null 2>&1 || true
    fi
done
