"""The Ray Serve graph: ingress, router and experts. The only importer of ray."""
