//! Compiles the protobuf definition of the federation service.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Asked when it runs, not when it was compiled: a target directory may serve several checkouts.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").ok_or("run by cargo, please")?;
    let root = std::path::Path::new(&here).join("../../proto");
    println!("cargo:rerun-if-changed={}", root.display());
    let descriptors = protox::compile(
        [
            "hashpact/federation/v1/federation.proto",
            "hashpact/federation/v1/bundle.proto",
        ],
        [&root],
    )?;
    tonic_prost_build::configure()
        .bytes(".")
        .codec_path("crate::codec::CappedCodec")
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors)?;
    Ok(())
}
