//! The rules of the domain: tables, properties, and comparison with the go command's own code.

#[cfg(test)]
mod created_zips;
#[cfg(test)]
mod go_imports;
#[cfg(test)]
mod go_mods;
#[cfg(test)]
mod hashes;
#[cfg(test)]
mod infos;
#[cfg(test)]
mod laws;
#[cfg(test)]
mod lists;
#[cfg(test)]
mod mutated;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod paths;
#[cfg(test)]
mod patterns;
#[cfg(test)]
mod proxies;
#[cfg(test)]
mod requests;
#[cfg(test)]
mod versions;
#[cfg(test)]
mod zip_faults;
#[cfg(test)]
mod zip_hostile;
#[cfg(test)]
mod zip_made;
#[cfg(test)]
mod zip_writer;
#[cfg(test)]
mod zips;
