//! For tests: a fake upstream and a fake checksum database made from small text files.
