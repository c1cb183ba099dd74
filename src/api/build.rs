//! Compiles the protobuf definition of the local API, and keeps it for reflection.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Asked when it runs, not when it was compiled: a target directory may serve several checkouts.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").ok_or("run by cargo, please")?;
    let root = std::path::Path::new(&here).join("../../proto");
    println!("cargo:rerun-if-changed={}", root.display());
    let mut compiler = protox::Compiler::new([&root])?;
    compiler.include_imports(true);
    compiler.open_file("hashpact/node/v1/node.proto")?;
    let out = std::env::var_os("OUT_DIR").ok_or("run by cargo, please")?;
    let descriptors = std::path::Path::new(&out).join("node.binpb");
    std::fs::write(descriptors, compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure()
        .bytes(".")
        .codec_path("crate::codec::CountedCodec")
        .emit_rerun_if_changed(false)
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
