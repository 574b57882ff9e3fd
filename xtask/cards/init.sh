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
# Waits for something, and ends all of it where that does not come.
wait_for() {
    waited=0
    until "$@" > /tmp/waited 2>&1; do
        if [ $waited -gt 1200 ]; then
            echo "this did not come: $*"
            busybox cat /tmp/waited
            busybox grep . /sys/block/*/size
            busybox dmesg | busybox tail -n 20
            busybox poweroff -f
        fi
        waited=$((waited + 1))
        busybox sleep 0.1
    done
}
has_drive() { [ -n "$(drive "$1")" ]; }
for size in 100 128 64 16 72 80 88; do wait_for has_drive $size; done
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
wait_for busybox mount -t vfat "/dev/${stick}1" /mnt
flash "$stick"
say part
flash "/dev/${stick}1"
busybox umount /mnt
say hidden
busybox unshare -m sh -c "busybox mount -t vfat /dev/${stick}1 /mnt; echo > /tmp/hidden; until [ -e /tmp/seen ]; do busybox sleep 0.1; done" &
wait_for [ -e /tmp/hidden ]
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
wait_for busybox grep writing /tmp/stopped
kill -TERM $!
wait $!
echo "exit $?"
busybox cat /tmp/stopped
muster flash /image.img.xz "$(drive 88)" --yes --no-counterfeit-check > /tmp/pulled 2>&1 &
wait_for busybox grep writing /tmp/pulled
say pull now
wait $!
code=$?
say pulled
busybox cat /tmp/pulled
echo "exit $code"
say end
busybox sync
busybox poweroff -f
