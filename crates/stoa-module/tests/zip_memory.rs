//! How much memory the check of a zip takes. It is a program of its own, so that nothing else runs beside it.

#![cfg(target_os = "linux")]

#[cfg(test)]
mod tests {
    use std::io::{BufWriter, Read, Seek, Write};

    use fs_err::File;
    use stoa_module::{CheckedZip, ModuleVersion, ZipLimits, check_zip};

    const MODULE: &str = "example.com/module@v1.0.0";
    const FILES: u32 = 150_000;
    const DATA: u64 = 192 << 20;

    /// The most memory that the process has had since the last call, in KiB, and then what it has now.
    fn peak_and_now() -> (u64, u64) {
        let status = fs_err::read_to_string("/proc/self/status").expect("procfs");
        let field = |name: &str| -> u64 {
            let line = status.lines().find(|line| line.starts_with(name)).expect("the field");
            line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
        };
        fs_err::write("/proc/self/clear_refs", "5").expect("procfs");
        (field("VmHWM"), field("VmRSS"))
    }

    /// Checks a zip and returns what that took, in KiB.
    fn measure(file: &File) -> (CheckedZip, u64) {
        let module = ModuleVersion::parse(MODULE).expect("a module");
        let (_, before) = peak_and_now();
        let checked =
            check_zip(file, &module, &ZipLimits::default()).expect("the zip keeps all rules");
        (checked, peak_and_now().0.saturating_sub(before))
    }

    struct ZipFile {
        out: BufWriter<std::fs::File>,
        directory: Vec<u8>,
        offset: u32,
        entries: u16,
    }

    impl ZipFile {
        fn new() -> Self {
            let out = BufWriter::new(tempfile::tempfile().expect("a temporary file"));
            Self { out, directory: Vec::new(), offset: 0, entries: 0 }
        }

        /// A stored file of zeros without a checksum.
        fn zeros(&mut self, name: &str, size: u32) {
            let name = format!("{MODULE}/{name}");
            let mut fields = [0_u8; 18];
            fields[10..14].copy_from_slice(&size.to_le_bytes());
            fields[14..18].copy_from_slice(&size.to_le_bytes());
            let length = u16::try_from(name.len()).expect("short").to_le_bytes();
            let header = [b"PK\x03\x04\x14\0\0\0", &fields[..], &length, &[0; 2], name.as_bytes()];
            let header = header.concat();
            self.out.write_all(&header).expect("written");
            std::io::copy(&mut std::io::repeat(0).take(size.into()), &mut self.out)
                .expect("written");
            let offset = self.offset.to_le_bytes();
            for part in [
                b"PK\x01\x02\x14\0\x14\0\0\0",
                &fields[..],
                &length,
                &[0; 12],
                &offset,
                name.as_bytes(),
            ] {
                self.directory.extend_from_slice(part);
            }
            self.offset += u32::try_from(header.len()).expect("short") + size;
            self.entries = self.entries.wrapping_add(1);
        }

        fn finish(mut self) -> File {
            let size = u32::try_from(self.directory.len()).expect("small");
            let entries = self.entries.to_le_bytes();
            let end = [
                b"PK\x05\x06\0\0\0\0",
                &entries[..],
                &entries,
                &size.to_le_bytes(),
                &self.offset.to_le_bytes(),
                &[0; 2],
            ];
            self.out.write_all(&self.directory).expect("written");
            self.out.write_all(&end.concat()).expect("written");
            let mut file = self.out.into_inner().expect("written");
            file.rewind().expect("a file");
            File::from_parts(file, "the zip")
        }
    }

    #[test]
    fn it_is_bounded() {
        let mut many = ZipFile::new();
        for n in 0..FILES {
            many.zeros(&format!("some/directory/{}/file-{n}.go", n % 100), 0);
        }
        let (checked, kib) = measure(&many.finish());
        assert_eq!(checked.files, u64::from(FILES));
        println!("{FILES} files: {kib} KiB");
        assert!(kib < 24 << 10, "{FILES} files took {kib} KiB");

        let mut large = ZipFile::new();
        large.zeros("large", u32::try_from(DATA).expect("small"));
        let (checked, kib) = measure(&large.finish());
        assert_eq!(checked.uncompressed_bytes, DATA);
        println!("one file of {DATA} bytes: {kib} KiB");
        assert!(kib < 2 << 10, "one file of {DATA} bytes took {kib} KiB");
    }
}
