"""The most memory that a program has held, for probes that run in a process of their own."""

PEAK_MB = '''
def peak_mb():
    """The most memory so far, in MB."""
    import resource, sys
    if sys.platform == "linux":  # where getrusage begins with the memory of the parent process
        lines = open("/proc/self/status").read().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
'''
"""Python source that defines `peak_mb()`."""
