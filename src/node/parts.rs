//! The real outside of a node, put together: clock, disk, network, images, volumes, runtime.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use async_executor::LocalExecutor;

use super::floor::FloorFile;
use super::machine::Facts;
use crate::cli::options::RunOptions;
use crate::net::RealNet;
use crate::net::proxy::Proxies;
use crate::os;
use crate::runtime::cgroup::Cgroups;
use crate::runtime::host::{self, HostRuntime, ImageParts, ImageSource, Layout, LogLimits};
use crate::runtime::images::{self, ImageStore, Registries};
use crate::runtime::network::{Bridge, Cni, Network, Subnet, instance_id};
use crate::runtime::oci::OciRuntime;
use crate::runtime::shim::executable;
use crate::runtime::stats::{self, HostStats};
use crate::runtime::volumes::DiskVolumes;
use crate::world::figures::Figures;
use crate::world::{Clock, Disk, Random, World};

/// Who follows a log has read a rotated file by then; a log that fills files faster than that is
/// beyond following anyway.
const COMPRESS_LOGS_AFTER: Duration = Duration::from_secs(10);

pub struct Parts {
    pub world: World,
    pub images: Rc<ImageStore>,
    pub runtime: Rc<HostRuntime>,
    pub figures: Arc<Figures>,
    pub floor: Rc<FloorFile>,
}

impl Parts {
    /// Errors: what is missing or wrong, with the flag that names it.
    pub async fn make(
        options: &RunOptions,
        clock: Rc<dyn Clock>,
        executor: Rc<LocalExecutor<'static>>,
        facts: &Facts,
    ) -> Result<Parts, String> {
        let random: Rc<dyn Random> = Rc::new(os::random::SystemRandom);
        let disk = os::disk::SystemDisk::open(&options.root_dir, &options.run_dir);
        let disk = disk.map_err(|error| format!("open ROOT and RUN: {error}"))?;
        let disk: Rc<dyn Disk> = Rc::new(disk);
        // Before anybody looks at a certificate.
        let floor = Rc::new(FloorFile::open(disk.clone()).await);
        let images = Rc::new(open_images(options, clock.clone(), facts).await?);
        let volumes = Rc::new(DiskVolumes::new(options.root_dir.clone(), clock.clone()));
        let cgroups = Cgroups::detect(&options.cgroup_root).map_err(|e| e.to_string())?;
        let cgroups = Arc::new(cgroups);
        let layout = Layout {
            root: options.root_dir.clone(),
            run: options.run_dir.clone(),
            logs: options.pod_logs_dir.clone(),
        };
        let made = cgroups.make_qos(&layout.cgroups());
        made.map_err(|error| error.to_string())?;
        let host_facts = host::read_facts(&cgroups).map_err(|e| format!("read host facts: {e}"))?;
        let runtime = Rc::new(HostRuntime::new(host::Parts {
            clock: clock.clone(),
            random: random.clone(),
            executor,
            layout,
            log_limits: LogLimits {
                bytes_max: options.container_log_bytes_max,
                files_max: options.container_log_files_max,
                compress_after: COMPRESS_LOGS_AFTER,
            },
            executable: executable(options)?,
            facts: host_facts,
            cgroups: cgroups.clone(),
            network: network(options)?,
            oci: OciRuntime::find(
                options.runtime.as_deref().unwrap_or("auto"),
                &options.run_dir.join("runc"),
            )?,
            images: Rc::new(Layers(images.clone())),
        }));
        let stats = HostStats::new(stats::Parts {
            clock: clock.clone(),
            runtime: runtime.clone(),
            images: images.clone(),
            cgroups,
            root: options.root_dir.clone(),
            images_root: options.root_dir.join("images"),
        });
        let world = World {
            clock: clock.clone(),
            random,
            disk,
            net: Rc::new(RealNet::new(clock)?),
            images: images.clone(),
            volumes,
            runtime: runtime.clone(),
            stats: Rc::new(stats),
        };
        Ok(Parts {
            world,
            images,
            runtime,
            figures: Arc::default(),
            floor,
        })
    }
}

async fn open_images(
    options: &RunOptions,
    clock: Rc<dyn Clock>,
    facts: &Facts,
) -> Result<ImageStore, String> {
    let registries = match &options.registry_config {
        None => Registries::default(),
        Some(path) => Registries::load(path).map_err(|e| format!("--registry-config: {e}"))?,
    };
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".docker"));
    let here = std::env::current_dir().ok();
    let config_dirs = [options.root_dir.clone()]
        .into_iter()
        .chain(here)
        .chain(home);
    let config_dirs = config_dirs.chain([PathBuf::from("/.docker")]);
    let opened = ImageStore::open(images::Options {
        root: options.root_dir.join("images"),
        checked_mark: options.run_dir.join("images-checked"),
        boot_id: facts.machine.boot_id.clone(),
        image_dir: Some(options.image_dir.clone()),
        limits: images::Limits::default(),
        registries,
        docker_config_dirs: config_dirs.collect(),
        proxies: Rc::new(Proxies::of_environment()),
        clock,
    });
    opened
        .await
        .map_err(|error| format!("open the image store: {error}"))
}

fn network(options: &RunOptions) -> Result<Network, String> {
    let bridge = Bridge::new(&instance_id(&options.root_dir), subnet(options)?, "nft");
    let records = options.root_dir.join("cni");
    let cni = Cni::new(options.cni_conf_dir.clone(), records);
    Ok(Network::new(bridge, cni))
}

/// The pods' addresses.
pub fn subnet(options: &RunOptions) -> Result<Subnet, String> {
    let cidr = &options.pod_cidr;
    let text = format!("{}/{}", cidr.address, cidr.prefix_bits);
    Subnet::parse(&text).map_err(|error| format!("--pod-cidr: {error}"))
}

/// A read-only view of this program: what shims and pause are started from, so that no container
/// can write to it (CVE-2019-5736).
fn executable(options: &RunOptions) -> Result<PathBuf, String> {
    let prepared = executable::prepare(&options.run_dir);
    let prepared = prepared.map_err(|error| format!("find this program's file: {error}"))?;
    if let Some(warning) = prepared.warning {
        log::warn!("{warning}");
    }
    Ok(prepared.path)
}

/// The image store, as the source of root file systems.
struct Layers(Rc<ImageStore>);

impl ImageSource for Layers {
    fn parts(&self, image_id: &str) -> Result<ImageParts, String> {
        let layers = self.0.layers(image_id).map_err(|error| error.to_string())?;
        let image = crate::world::Images::find(&*self.0, image_id);
        let image = image.ok_or_else(|| format!("image {image_id} is not here"))?;
        Ok(ImageParts {
            layers,
            config: image.config.clone(),
        })
    }
}
