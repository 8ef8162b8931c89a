"""What a bundle says of pictures, films and a camera: read, answered part by part, kept."""
