//! The pure vocabulary of Go modules: paths, versions, patterns, requests, hashes.
