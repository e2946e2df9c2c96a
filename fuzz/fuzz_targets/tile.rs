#![no_main]
#![expect(clippy::disallowed_methods, reason = "libFuzzer's macro opens a file")]
libfuzzer_sys::fuzz_target!(|data: &[u8]| stoa_fuzz::tile::check(data));
