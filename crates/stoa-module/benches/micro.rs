//! What is done for each request, and the check of a zip with what it is made of.

use std::hint::black_box;
use std::io::{Cursor, Read, Write};
use std::path::Path;
use std::sync::LazyLock;

use divan::Bencher;
use divan::counter::BytesCount;
use flate2::Compression;
use flate2::bufread::DeflateDecoder;
use flate2::write::DeflateEncoder;
use stoa_module::{
    Artifact, H1, ModulePath, ModuleVersion, Request, Sha256, Version, ZipLimits, check_zip,
    parse_list,
};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

fn main() {
    divan::main();
}

const MODULE: &str = "github.com/Azure/azure-sdk-for-go/sdk/azcore@v1.18.2";

fn module() -> ModuleVersion {
    ModuleVersion::parse(MODULE).expect("a module")
}

#[divan::bench(args = [
    "/github.com/%21azure/azure-sdk-for-go/sdk/azcore/@v/v1.18.2.zip",
    "/github.com/!azure/azure-sdk-for-go/sdk/azcore/@v/v1.18.2.mod",
    "/golang.org/x/exp/@v/v0.0.0-20250620022241-b7579e27df2b.info",
    "/golang.org/x/text/@v/list",
    "/golang.org/x/text/@latest",
    "/sumdb/sum.golang.org/tile/8/0/x202/849",
    "/favicon.ico",
])]
fn request(path: &str) -> bool {
    Request::parse(black_box(path)).is_ok()
}

#[divan::bench]
fn escape_path(bencher: Bencher<'_, '_>) {
    let module = module();
    bencher.bench_local(|| black_box(module.path()).escaped());
}

#[divan::bench]
fn unescape_path() -> ModulePath {
    ModulePath::parse_escaped(black_box("github.com/!azure/azure-sdk-for-go/sdk/azcore"))
        .expect("a path")
}

#[divan::bench]
fn escape_file(bencher: Bencher<'_, '_>) {
    let module = module();
    bencher.bench_local(|| black_box(&module).escaped_file(Artifact::Zip));
}

#[divan::bench(args = ["v1.18.2", "v0.0.0-20250620022241-b7579e27df2b"])]
fn version(version: &str) -> Version {
    Version::parse(black_box(version)).expect("a version")
}

#[divan::bench]
fn list_of_5000(bencher: Bencher<'_, '_>) {
    let path = ModulePath::parse("golang.org/x/tools").expect("a path");
    let body: String =
        (0..5000).flat_map(|n| ["v0.".to_owned(), n.to_string(), ".0\n".to_owned()]).collect();
    bencher.bench_local(|| parse_list(black_box(body.as_bytes()), &path));
}

/// The Rust files of this repository, which compress like other source, under as many names as it takes.
static SOURCES: LazyLock<Vec<(String, Vec<u8>)>> = LazyLock::new(|| {
    let mut files = Vec::new();
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crates");
    collect(crates, crates, &mut files);
    files.sort();
    files
});

fn collect(root: &Path, dir: &Path, files: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs_err::read_dir(dir).expect("the repository").flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(root, &path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).expect("it is below").to_string_lossy().into_owned();
            files.push((name, fs_err::read(&path).expect("a file")));
        }
    }
}

/// A zip of about so many bytes of source, and how many they are.
fn zip_of(bytes: usize, as_one: bool, method: CompressionMethod) -> (Vec<u8>, usize) {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(method);
    let mut written = 0;
    if as_one {
        writer.start_file(format!("{MODULE}/all.txt"), options).expect("an entry");
    }
    for round in 0.. {
        for (name, text) in SOURCES.iter() {
            if written >= bytes {
                return (writer.finish().expect("a zip").into_inner(), written);
            }
            if !as_one {
                writer.start_file(format!("{MODULE}/{round}/{name}"), options).expect("an entry");
            }
            writer.write_all(text).expect("memory");
            written += text.len();
        }
    }
    unreachable!("the rounds have no end")
}

const SOURCE: usize = 16 << 20;

/// A whole check, by bytes of source.
fn check(bencher: Bencher<'_, '_>, as_one: bool, method: CompressionMethod) {
    let (zip, bytes) = zip_of(SOURCE, as_one, method);
    let module = module();
    bencher.counter(BytesCount::new(bytes)).bench_local(|| {
        check_zip(Cursor::new(black_box(&zip)), &module, &ZipLimits::default())
            .expect("a module zip")
    });
}

#[divan::bench(sample_count = 20)]
fn h1_of_files(bencher: Bencher<'_, '_>) {
    check(bencher, false, CompressionMethod::Deflated);
}

#[divan::bench(sample_count = 20)]
fn h1_of_one_file(bencher: Bencher<'_, '_>) {
    check(bencher, true, CompressionMethod::Deflated);
}

#[divan::bench(sample_count = 20)]
fn h1_of_stored_files(bencher: Bencher<'_, '_>) {
    check(bencher, false, CompressionMethod::Stored);
}

#[divan::bench]
fn h1_of_go_mod(bencher: Bencher<'_, '_>) {
    let text =
        b"module example.com/m\n\ngo 1.24.0\n\nrequire golang.org/x/text v0.27.0\n".repeat(20);
    bencher.counter(BytesCount::of_slice(&text)).bench_local(|| H1::of_go_mod(black_box(&text)));
}

/// For what a check is made of, each alone.
fn source() -> Vec<u8> {
    SOURCES.iter().flat_map(|(_, text)| text.clone()).take(1 << 20).collect()
}

#[divan::bench]
fn alone_sha256(bencher: Bencher<'_, '_>) {
    let source = source();
    bencher.counter(BytesCount::of_slice(&source)).bench_local(|| Sha256::of(black_box(&source)));
}

#[divan::bench]
fn alone_crc32(bencher: Bencher<'_, '_>) {
    let source = source();
    bencher.counter(BytesCount::of_slice(&source)).bench_local(|| {
        let mut crc = flate2::Crc::new();
        crc.update(black_box(&source));
        crc.sum()
    });
}

#[divan::bench]
fn alone_inflate(bencher: Bencher<'_, '_>) {
    let source = source();
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&source).expect("memory");
    let packed = encoder.finish().expect("memory");
    let mut buffer = vec![0; 64 << 10];
    bencher.counter(BytesCount::of_slice(&source)).bench_local(|| {
        let mut decoder = DeflateDecoder::new(black_box(&packed[..]));
        while decoder.read(&mut buffer).expect("it was deflated") > 0 {}
    });
}
