#!/bin/busybox sh
# First process of a test machine: sets it up, runs /vm/script with its output on the second serial
# line, tells its exit code there, and powers off.
/bin/busybox mkdir -p /sbin /usr/bin /usr/sbin
/bin/busybox --install -s
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
chmod 1777 /tmp
mount -t securityfs securityfs /sys/kernel/security
mount -t tracefs tracefs /sys/kernel/tracing
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
[ -e /dev/fd ] || ln -s /proc/self/fd /dev/fd

while read -r module; do
    insmod "/lib/modules/$module" || echo "init: cannot load $module"
done </lib/modules/order

hostname vm
ip link set lo up
ulimit -n 65536
sysctl -qw net.core.somaxconn=65535 net.ipv4.ip_local_port_range="1024 65535" net.ipv4.tcp_max_syn_backlog=65535

cd /root || exit 1
if [ -e /vm/interactive ]; then
    setsid cttyhack sh
else
    # raw, or every line ends in CR LF
    stty -F /dev/ttyS1 raw -echo
    sh /vm/script </dev/null >/dev/ttyS1 2>&1
    echo "@exit $?" >/dev/ttyS1
    # the line's buffer goes out before the machine does
    stty -F /dev/ttyS1 >/dev/null
fi
poweroff -f
