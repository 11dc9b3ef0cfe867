"""The emoji that everything here is made of: drawings, the five domains, and the networks that judge samples."""
