//! Volumes of pods on the real disk.
