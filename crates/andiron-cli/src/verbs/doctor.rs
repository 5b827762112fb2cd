//! `andiron doctor`: report on the machine and the build.

use andiron_core::Backend;
use andiron_kernels::{Bf16Rate, Cpu, Isa, Precision};
use clap::Args;
use serde::Serialize;

use crate::exit::Ending;
use crate::flags::Common;
use crate::lines::out;
use crate::machine;

/// Show the processor, memory and backends, and what this build uses of them
#[derive(Debug, Args)]
pub struct Doctor {}

#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    cpu: String,
    cpus: usize,
    threads: usize,
    cpu_features: Vec<&'static str>,
    kernels: String,
    bf16: Bf16Report,
    memory_bytes: Option<u64>,
    available_bytes: Option<u64>,
    backends: Vec<BackendReport>,
    default_device: Option<String>,
}

/// How mixed-precision matmuls are computed.
#[derive(Debug, Serialize)]
struct Bf16Report {
    /// Whether operands are rounded to bf16; otherwise the matmuls run in f32.
    used: bool,
    /// Measured on one core; absent without AVX-512-BF16.
    bf16_gflops: Option<f64>,
    /// Measured on one core; absent without AVX-512-BF16.
    f32_gflops: Option<f64>,
}

#[derive(Debug, Serialize)]
struct BackendReport {
    name: &'static str,
    compiled: bool,
    devices: Vec<String>,
}

impl Doctor {
    /// Collects and prints the report.
    pub fn run(self, common: &Common) -> anyhow::Result<Ending> {
        let default_device = match Backend::compiled().is_empty() {
            true => None,
            false => Some(common.device_spec()?.to_string()),
        };
        let report = Report {
            version: env!("CARGO_PKG_VERSION"),
            cpu: machine::cpu_name().unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cpus: machine::n_cpus(),
            threads: common.threads(),
            cpu_features: cpu_features(),
            kernels: Isa::best().to_string(),
            bf16: Bf16Report::measured(),
            memory_bytes: machine::memory_bytes(),
            available_bytes: machine::available_bytes(),
            backends: Backend::ALL.into_iter().map(BackendReport::of).collect(),
            default_device,
        };
        if common.json {
            out!("{}", serde_json::to_string(&report)?)?;
        } else {
            report.print()?;
        }
        Ok(Ending::Done)
    }
}

impl Bf16Report {
    fn measured() -> Self {
        let used = Cpu::detect(1).at(Precision::Mixed).matmul_precision() == Precision::Mixed;
        let rate = Bf16Rate::of_this_machine();
        let (bf16_gflops, f32_gflops) = (rate.map(|rate| rate.bf16_gflops), rate.map(|rate| rate.f32_gflops));
        Self { used, bf16_gflops, f32_gflops }
    }

    /// The two rates, and what follows from them.
    fn line(&self, isa: Isa) -> Option<String> {
        let (bf16, f32) = (self.bf16_gflops?, self.f32_gflops?);
        let used = match (isa, self.used) {
            (Isa::Amx, true) => "AMX tiles are used instead",
            (_, true) => "bf16 instructions are used",
            (_, false) => "bf16 is widened to f32",
        };
        Some(format!(
            "AVX-512-BF16 {bf16:.0} GFLOP/s, f32 {f32:.0} GFLOP/s on one core ({:.1} times): {used}",
            bf16 / f32
        ))
    }
}

impl BackendReport {
    fn of(backend: Backend) -> Self {
        let compiled = backend.is_compiled();
        let devices = if compiled { backend.found() } else { Vec::new() };
        Self { name: backend.name(), compiled, devices }
    }
}

impl Report {
    fn print(&self) -> anyhow::Result<()> {
        let gigabytes = |bytes: Option<u64>| match bytes {
            Some(bytes) => format!("{:.1} GB", bytes as f64 / 1e9),
            None => "unknown".to_owned(),
        };
        out!("andiron   {}", self.version)?;
        out!("processor {}, {} logical, {} threads used", self.cpu, self.cpus, self.threads)?;
        out!("features  {}", self.cpu_features.join(" "))?;
        out!("kernels   {}", self.kernels)?;
        for (what, how) in paths(Isa::best(), self.bf16.used) {
            out!("  {what:<8} {how}")?;
        }
        if let Some(rates) = self.bf16.line(Isa::best()) {
            out!("  {:<8} {rates}", "bf16")?;
        }
        let (memory, available) = (gigabytes(self.memory_bytes), gigabytes(self.available_bytes));
        out!("memory    {memory}, {available} available")?;
        out!("device    {}", self.default_device.as_deref().unwrap_or("none: this build has no backend"))?;
        out!("backends")?;
        for BackendReport { name, compiled, devices } in &self.backends {
            let found = match (compiled, devices.is_empty()) {
                (false, _) => {
                    format!("not in this build; `cargo xtask <verb> --backend {name}` makes one with it")
                }
                (true, true) => "in this build, no device found".to_owned(),
                (true, false) => devices.join("; "),
            };
            out!("  {name:<8} {found}")?;
        }
        Ok(())
    }
}

/// How the kernels of an instruction set process each type of operand, and what the next better set requires. `bf16_used`:
/// whether mixed precision uses bf16 instructions.
fn paths(isa: Isa, bf16_used: bool) -> Vec<(&'static str, &'static str)> {
    const WIDENED: &str = "multiplied in f32, as fast as f32";
    let (f32, mixed, blocks, more) = match isa {
        Isa::Scalar => (
            "one element at a time",
            WIDENED,
            "one element at a time",
            cfg!(target_arch = "x86_64").then_some("avx2, with AVX2 and FMA, which this processor lacks"),
        ),
        Isa::Avx2 => (
            "8 elements at a time",
            WIDENED,
            "32 bytes at a time",
            Some("avx512, with AVX-512F, which this processor lacks"),
        ),
        Isa::Avx512 => (
            "16 elements at a time",
            WIDENED,
            "32 bytes at a time, as AVX2 does it",
            Some("avx512-bf16, with AVX-512 BW, VL, VNNI and BF16, of which this processor lacks some"),
        ),
        Isa::Avx512Bf16 => (
            "16 elements at a time",
            if bf16_used { "32 bf16 at a time" } else { WIDENED },
            "64 bytes at a time",
            Some("amx, with AMX-TILE and AMX-BF16, which this processor lacks or the system withholds"),
        ),
        Isa::Amx => ("16 elements at a time", "tiles of 16 x 32 bf16", "64 bytes at a time", None),
        Isa::Neon => (
            "8 elements at a time, in two vectors",
            WIDENED,
            "32 bytes at a time, in two vectors, by way of 16 bits",
            Some("neon-dot, with DotProd, which this processor lacks"),
        ),
        Isa::NeonDot => {
            ("8 elements at a time, in two vectors", WIDENED, "32 bytes at a time, in two vectors", None)
        }
    };
    let paths = [("f32", f32), ("mixed", mixed), ("blocks", blocks)];
    paths.into_iter().chain(more.map(|more| ("better", more))).collect()
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! detected {
    ($detected:ident: $($name:tt)*) => {{
        let all = [$(($name, std::arch::$detected!($name))),*];
        all.into_iter().filter_map(|(name, has)| has.then_some(name)).collect()
    }};
}

#[cfg(target_arch = "x86_64")]
fn cpu_features() -> Vec<&'static str> {
    detected!(is_x86_feature_detected: "avx2" "fma" "f16c" "avx512f" "avx512bw" "avx512vl" "avx512vnni"
        "avx512bf16" "avx512fp16")
}

#[cfg(target_arch = "aarch64")]
fn cpu_features() -> Vec<&'static str> {
    detected!(is_aarch64_feature_detected: "neon" "dotprod" "fp16" "bf16" "i8mm" "sve" "sve2")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn cpu_features() -> Vec<&'static str> {
    Vec::new()
}
