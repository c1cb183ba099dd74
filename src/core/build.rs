//! Compiles the protobuf definitions of what is signed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Asked when it runs, not when it was compiled: a target directory may serve several checkouts.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").ok_or("run by cargo, please")?;
    let root = std::path::Path::new(&here).join("../../proto");
    let files = [
        "hashpact/core/v1/leaf.proto",
        "hashpact/core/v1/document.proto",
        "hashpact/core/v1/evidence.proto",
        "hashpact/core/v1/proof.proto",
        "hashpact/core/v1/audit.proto",
    ];
    println!("cargo:rerun-if-changed={}", root.display());
    let descriptors = protox::compile(files, [&root])?;
    prost_build::Config::new()
        .bytes(["."])
        .compile_fds(descriptors)?;
    Ok(())
}
