//! The project's own commands. This file only dispatches.

mod ebpf;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["ebpf"] => ebpf::build(false),
        ["ebpf", "--check"] => ebpf::build(true),
        ["ebpf", "--lint"] => ebpf::lint(),
        _ => anyhow::bail!("cargo xtask ebpf [--check|--lint]"),
    }
}
