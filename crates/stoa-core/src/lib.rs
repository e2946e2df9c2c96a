//! The decisions: policy, flights, fetch, verify, commit, list and latest, offline.
