"""From outputs to decisions: calibrated probabilities, prediction sets, abstention, unfamiliar inputs."""
