//! Boot, console and the shell, past all doors.

use std::{sync::Arc, time::Duration};

use super::{Node, module::Slotted};
use crate::{Durations, Faults, Module as _, NodePlan, OsImage, Pace, world::World};

fn node(plan: NodePlan) -> (Arc<World>, Arc<Node>) {
    let world = Arc::new(World::new(Pace::INSTANT, Durations::default(), Faults::default()));
    let node = Arc::new(Node::new(plan, Arc::downgrade(&world)));
    world.set_nodes(vec![Arc::clone(&node)]);
    (world, node)
}

fn uart(node: &Node) -> String {
    String::from_utf8_lossy(&node.uart.peek()).into_owned()
}

async fn until(node: &Node, text: &str) {
    let waited = tokio::time::timeout(Duration::from_secs(10), async {
        while !uart(node).contains(text) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    assert!(waited.await.is_ok(), "`{text}` never came: {}", uart(node));
}

async fn flash(node: &Arc<Node>, image: &OsImage) {
    let slot = Slotted(Arc::clone(node));
    slot.set_power(false, false).await;
    let raw = image.raw();
    slot.set_power(true, true).await;
    slot.write_emmc(0, &raw).await.unwrap();
    assert_eq!(slot.read_emmc(0, raw.len()).await.unwrap(), raw);
    slot.set_power(false, false).await;
}

#[tokio::test]
async fn a_module_with_an_empty_emmc_stays_silent() {
    let (_world, node) = node(NodePlan::new("n"));
    node.set_power(true, false);
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert_eq!(uart(&node), "");
    assert!(!node.bootable());
}

#[tokio::test]
async fn armbian_boots_to_its_wizard_and_the_console_becomes_a_root_shell() {
    let plan = NodePlan::new("n")
        .address("10.10.88.73".parse().unwrap())
        .leased_address("10.10.88.150".parse().unwrap());
    let (_world, node) = node(plan);
    flash(&node, &OsImage::armbian().with_size(64 * 1024)).await;
    node.set_power(true, false);
    until(&node, "turing-rk1 login: ").await;
    let image_key = node.os(|os| os.vfs.text("/etc/ssh/ssh_host_ed25519_key.pub")).unwrap();
    until(&node, "Create root password: ").await;
    node.type_line("a-long-password");
    until(&node, "Repeat root password: ").await;
    node.type_line("a-long-password");
    until(&node, "Choose default system command shell").await;
    node.type_line("1");
    until(&node, "provide a username").await;
    node.type_line("");
    until(&node, "based on your location").await;
    node.type_line("n");
    until(&node, "root@turing-rk1:~# ").await;
    node.type_line("ip -4 -o addr show dev end0");
    until(&node, "inet 10.10.88.150/24").await;
    assert_eq!(node.present_address(), "10.10.88.150".parse().ok());
    assert!(!node.os(|os| os.vfs.exists("/root/.not_logged_in_yet")).unwrap());
    // The first run makes new host keys soon after.
    let waited = tokio::time::timeout(Duration::from_secs(10), async {
        while node.os(|os| os.vfs.text("/etc/ssh/ssh_host_ed25519_key.pub")).unwrap() == image_key {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    assert!(waited.await.is_ok(), "the host key of the image stays");
}

#[tokio::test]
async fn ubuntu_forces_a_new_password_on_the_console() {
    let (_world, node) = node(NodePlan::new("n"));
    flash(&node, &OsImage::ubuntu().with_size(64 * 1024)).await;
    node.set_power(true, false);
    until(&node, "ubuntu login: ").await;
    node.type_line("ubuntu");
    until(&node, "Password: ").await;
    node.type_line("ubuntu");
    until(&node, "Current password: ").await;
    node.type_line("ubuntu");
    until(&node, "New password: ").await;
    node.type_line("another-one");
    until(&node, "Retype new password: ").await;
    node.type_line("another-one");
    until(&node, "ubuntu@ubuntu:~$ ").await;
    node.type_line("id -un");
    until(&node, "id -un\r\nubuntu\r\n").await;
}

#[tokio::test]
async fn a_second_flash_leaves_nothing_of_the_first_system() {
    let (_world, node) = node(NodePlan::new("n"));
    flash(&node, &OsImage::debian().with_size(64 * 1024)).await;
    node.set_power(true, false);
    until(&node, "debian login: ").await;
    assert_eq!(node.run_as_root("echo mine > /root/file").await.0, 0);
    let (first, _) = node.image().unwrap();
    flash(&node, &OsImage::armbian().with_size(64 * 1024)).await;
    assert_ne!(node.image().unwrap().0, first);
    node.set_power(true, false);
    until(&node, "turing-rk1 login: ").await;
    assert_eq!(node.run_as_root("cat /root/file").await.0, 1);
}

#[tokio::test]
async fn disks_are_divided_formatted_and_mounted_again_at_boot() {
    let (_world, node) = node(NodePlan::new("n").installed(OsImage::debian()).nvme(500 << 30));
    let mut os = super::rootfs::from_image(&OsImage::debian(), &node.plan);
    super::rootfs::settle(&mut os, &node.plan);
    node.set_os(Some(os));
    node.start_running();
    let script = "set -e\nlsblk -dno NAME,TYPE | grep nvme\nprintf 'label: gpt\\n,,L\\n' | sfdisk -q /dev/nvme0n1 >/dev/null\n\
                  mkfs.ext4 -q -L data /dev/nvme0n1p1 >/dev/null\nuuid=$(blkid -s UUID -o value /dev/nvme0n1p1)\nmkdir -p /srv/data\n\
                  echo \"UUID=$uuid /srv/data ext4 defaults,nofail 0 2\" >> /etc/fstab\nmount -a\necho kept > /srv/data/file\n\
                  findmnt -n -o SOURCE,FSTYPE /srv/data\n";
    let (code, out, err) = node.run_as_root(script).await;
    assert_eq!((code, out.as_str()), (0, "nvme0n1 disk\n/dev/nvme0n1p1 ext4\n"), "{err}");
    node.halt();
    assert!(
        node.os(|os| os.vfs.text("/srv/data/file")).unwrap().is_empty(),
        "nothing is mounted while it is off"
    );
    node.start_running();
    assert_eq!(node.run_as_root("cat /srv/data/file").await.1, "kept\n");
}

#[tokio::test]
async fn packages_bring_their_commands_and_units_and_wait_for_the_lock() {
    let (_world, node) = node(NodePlan::new("n"));
    let mut os = super::rootfs::from_image(&OsImage::debian(), &node.plan);
    super::rootfs::settle(&mut os, &node.plan);
    node.set_os(Some(os));
    node.start_running();
    assert_eq!(node.run_as_root("curl --version").await.0, 127);
    assert_eq!(
        node.run_as_root("apt-get install -y curl").await.0,
        100,
        "the package lists are not there yet"
    );
    node.hold_dpkg("unattended-upgr", Duration::from_secs(20));
    assert_eq!(node.run_as_root("apt-get update").await.0, 100, "somebody holds the lock");
    let wait = "apt-get -o DPkg::Lock::Timeout=300 update && apt-get -y install open-iscsi curl";
    let (code, _, err) = node.run_as_root(wait).await;
    assert_eq!(code, 0, "{err}");
    let (_, out, _) = node.run_as_root("dpkg-query -W -f '${db:Status-Status} ${Package}\\n' open-iscsi; systemctl enable --now iscsid; systemctl is-active iscsid; command -v curl >/dev/null && echo there").await;
    assert_eq!(out, "installed open-iscsi\nactive\nthere\n");
}
