#!/usr/bin/busybox sh
# The whole of a machine that flashes cards; xtask/src/cards.rs reads what it says.
export PATH=/usr/bin:/usr/sbin HOME=/tmp
busybox mount -t devtmpfs dev /dev
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
busybox mount -t tmpfs tmp /tmp
exec < /dev/console > /dev/console 2>&1
for module in xhci_pci usb_storage uas sd_mod sdhci_pci mmc_block virtio_pci virtio_blk vfat nls_cp437 nls_ascii; do
    busybox modprobe "$module"
done

# A drive by its size in MiB.
drive() {
    for name in /sys/block/*; do
        [ "$(busybox cat "$name/size")" = $(($1 * 2048)) ] && echo "${name##*/}"
    done
}
until [ -n "$(drive 100)" ] && [ -n "$(drive 128)" ] && [ -n "$(drive 64)" ] && [ -n "$(drive 16)" ] \
    && [ -n "$(drive 72)" ] && [ -n "$(drive 80)" ] && [ -n "$(drive 88)" ]; do
    busybox sleep 0.1
done
stick=$(drive 100)
say() { echo "@@ $*"; }
flash() {
    muster flash /image.img.xz "$@" --yes
    echo "exit $?"
}

say list
muster flash
say two
flash "$stick" mmcblk0 --claims /kit
busybox blockdev --rereadpt "/dev/$stick"
busybox mkdir -p /mnt
say mounted
until busybox mount -t vfat "/dev/${stick}1" /mnt; do busybox sleep 0.1; done
flash "$stick"
say part
flash "/dev/${stick}1"
busybox umount /mnt
say hidden
busybox unshare -m sh -c "busybox mount -t vfat /dev/${stick}1 /mnt; echo > /tmp/hidden; until [ -e /tmp/seen ]; do busybox sleep 0.1; done" &
until [ -e /tmp/hidden ]; do busybox sleep 0.1; done
flash "$stick"
echo > /tmp/seen
wait
say locked
for name in $(drive 64); do
    case $name in sd*) flash "$name" ;; esac
done
say small
flash "$(drive 16)"
say fixed
flash vda
flash vda --built-in
say swap
busybox mkswap /dev/vda > /dev/null
busybox swapon /dev/vda
flash vda --built-in
busybox swapoff /dev/vda
flash vda --built-in > /dev/null
say bad
flash "$(drive 72)" mmcblk0
say stopped
muster flash /image.img.xz "$(drive 80)" --yes --no-counterfeit-check > /tmp/stopped 2>&1 &
until busybox grep -q writing /tmp/stopped; do busybox sleep 0.1; done
kill -TERM $!
wait $!
echo "exit $?"
busybox cat /tmp/stopped
muster flash /image.img.xz "$(drive 88)" --yes --no-counterfeit-check > /tmp/pulled 2>&1 &
until busybox grep -q writing /tmp/pulled; do busybox sleep 0.1; done
say pull now
wait $!
code=$?
say pulled
busybox cat /tmp/pulled
echo "exit $code"
say end
busybox sync
busybox poweroff -f
