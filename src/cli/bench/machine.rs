//! What the figures were measured on, and what of it this process uses.

use std::fs;

use serde::Serialize;

/// The machine and the program, as every result names them.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Machine {
    /// This program.
    version: &'static str,
    /// How it was built.
    build: &'static str,
    cores: usize,
    cpu: String,
    memory_bytes: u64,
    kernel: String,
    architecture: &'static str,
}

impl Machine {
    /// Asks the system; what it does not say stays empty.
    pub(super) fn here() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            build: if cfg!(debug_assertions) {
                "debug"
            } else {
                "release"
            },
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            cpu: field("/proc/cpuinfo", "model name").unwrap_or_default(),
            memory_bytes: kibibytes("/proc/meminfo", "MemTotal"),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .map(|text| text.trim().to_owned())
                .unwrap_or_default(),
            architecture: std::env::consts::ARCH,
        }
    }

    pub(super) fn line(&self) -> String {
        let gib = self.memory_bytes >> 30;
        format!(
            "hashpact {} ({}), {} cores of {}, {gib} GiB, Linux {}",
            self.version, self.build, self.cores, self.cpu, self.kernel
        )
    }
}

/// Memory of this process, in bytes.
#[derive(Debug, Clone, Copy, Default, Serialize, serde::Deserialize)]
pub(super) struct Memory {
    /// Resident now.
    pub(super) resident_bytes: u64,
    /// The most that was resident since the start, or since [`Memory::reset_peak`].
    pub(super) peak_bytes: u64,
}

impl Memory {
    pub(super) fn here() -> Self {
        Self {
            resident_bytes: kibibytes("/proc/self/status", "VmRSS"),
            peak_bytes: kibibytes("/proc/self/status", "VmHWM"),
        }
    }

    /// Begins to count the peak anew. Where the system does not allow it, the peak
    /// stays that of the whole process.
    pub(super) fn reset_peak() {
        let _ = fs::write("/proc/self/clear_refs", "5");
    }
}

/// Seconds of processor time that this process has used, all threads together.
pub(super) fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name, in brackets, may have blanks; user and system time follow as the
    // 12th and 13th field after it, in ticks of which Linux counts 100 a second.
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    let ticks = after.split_ascii_whitespace().skip(11).take(2);
    ticks
        .filter_map(|ticks| ticks.parse::<f64>().ok())
        .sum::<f64>()
        / 100.0
}

fn kibibytes(file: &str, name: &str) -> u64 {
    let value = field(file, name).unwrap_or_default();
    let number = value.split_ascii_whitespace().next();
    number.and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1_024
}

/// The value of the first `name: value` line.
fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = lines.find(|(key, _)| key.trim() == name)?;
    Some(value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linux_machine_says_what_it_is() {
        let machine = Machine::here();
        assert!(machine.cores > 0 && machine.memory_bytes > 0, "{machine:?}");
        assert!(!machine.kernel.is_empty());
        let memory = Memory::here();
        assert!(memory.peak_bytes >= memory.resident_bytes / 2 && memory.resident_bytes > 0);
    }
}
