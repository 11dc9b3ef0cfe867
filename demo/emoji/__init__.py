"""The emoji data: drawings, the five domains, and the networks that judge samples."""
