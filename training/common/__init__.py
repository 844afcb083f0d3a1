"""The parts that several trainings share: settings, optimizers, run folders, averages, processes."""
