"""What the library costs, measured. A package, since Opacus installs another of this name."""
