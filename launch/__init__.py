"""Puts `mmjax train` on one machine, a SLURM cluster, GKE or TPU VMs."""
