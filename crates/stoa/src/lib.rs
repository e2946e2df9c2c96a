//! A caching GOPROXY server: the program.
