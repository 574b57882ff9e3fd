#!/bin/sh
# debian-root.sh plain|cloud MIRROR OUT.ext4 EMULATOR: the root of a Debian for 64-bit ARM, with cloud-init or
# without. Run by inside.py.
set -eu
kind=$1 mirror=$2 out=$3 emulator=$4
suite=bookworm

# Programs for 64-bit ARM are run by the emulator, which is opened now (F) and so is there inside of the root, too.
# The name is the one that mmdebstrap looks for.
magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
echo ":qemu-aarch64:M::$magic:$mask:$emulator:OCF" >/proc/sys/fs/binfmt_misc/register 2>/dev/null ||
    printf '%s' ":qemu-aarch64:M::$magic:$mask:$emulator:OCF" >/proc/sys/fs/binfmt_misc/register

packages=systemd-sysv,udev,dbus,iproute2,ca-certificates,e2fsprogs,passwd
[ "$kind" = plain ] || packages=$packages,cloud-init
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
root=$(mktemp -d)
export DEBIAN_FRONTEND=noninteractive
mmdebstrap --mode=root --architectures=arm64 --variant=minbase --format=directory --include="$packages" \
    --aptopt='Acquire::Languages "none"' --aptopt='APT::Install-Recommends "false"' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    "$suite" "$root/system" "deb [arch=arm64 signed-by=$keyring] $mirror $suite main"

# As images have it: a name, the network, the boot partition.
cd "$root/system"
echo stock >etc/hostname
printf 'LABEL=rootfs / ext4 noatime 0 1\nLABEL=system-boot /boot/firmware vfat nofail 0 2\n' >etc/fstab
mkdir -p boot/firmware
printf '[Match]\nName=e*\n[Network]\nDHCP=yes\n' >etc/systemd/network/20-wired.network
mkdir -p etc/systemd/system/multi-user.target.wants etc/systemd/system/network-online.target.wants
ln -sf /lib/systemd/system/systemd-networkd.service etc/systemd/system/multi-user.target.wants/
ln -sf /lib/systemd/system/systemd-networkd-wait-online.service etc/systemd/system/network-online.target.wants/
if [ "$kind" = cloud ]; then
    # As Ubuntu's image for the Raspberry Pi has it.
    printf 'datasource_list: [NoCloud, None]\ndatasource: {NoCloud: {fs_label: system-boot}}\nnetwork: {config: disabled}\n' \
        >etc/cloud/cloud.cfg.d/99-stock.cfg
fi
truncate -s 1200M "$out"
mke2fs -q -F -t ext4 -L rootfs -d "$root/system" "$out"
cd /
rm -rf "$root"
