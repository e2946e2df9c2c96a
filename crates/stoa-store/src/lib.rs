//! Durable state: write-once blobs and the index.
