"""What a person asks for, one public function a file; the command line and Python call the same ones."""
