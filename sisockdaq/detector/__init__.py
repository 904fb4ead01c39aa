"""Detector packets: formats, assembly into images, simulators and replay."""
