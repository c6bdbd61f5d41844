namespace Ublkback.Backend;

/// <summary>
/// Takes devices away from the kernel's xen-blkback. Its module claims every vbd there is, also connected ones, whenever
/// udev loads it.
/// </summary>
/// <param name="sysfsPath">Where sysfs is mounted.</param>
public sealed class KernelBlkback(string sysfsPath)
{
    /// <summary>Whether the kernel's driver has the device.</summary>
    public bool Holds(VbdAddress address) => Directory.Exists(DriverOf(address));

    /// <summary>Unbinds a device from its driver, if it has one; true when it had. May block.</summary>
    /// <exception cref="IOException">The kernel refused.</exception>
    public bool Release(VbdAddress address)
    {
        if (!Holds(address)) return false;
        try
        {
            File.WriteAllText(Path.Combine(DriverOf(address), "unbind"), address.KernelName);
            return true;
        }
        catch (Exception failure) when (failure is FileNotFoundException or DirectoryNotFoundException)
        {
            return false; // it let go meanwhile
        }
    }

    private string DriverOf(VbdAddress address) =>
        Path.Combine(sysfsPath, "bus/xen-backend/devices", address.KernelName, "driver");
}
