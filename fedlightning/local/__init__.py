"""What happens at a worker: programs that train and evaluate a LightningModule there. No Trainer loop."""
