using System.ComponentModel;
using System.Diagnostics;
using Ublkback.Backend.Xenbus;

namespace Ublkback.Backend.Connections;

/// <summary>
/// Takes devices away from the kernel's xen-blkback. When udev loads its module, it claims every vbd, also connected
/// ones. Any thread; all but <see cref="Holds"/> may block.
/// </summary>
/// <param name="sysfsPath">Where sysfs is mounted.</param>
public sealed class KernelBlkback(string sysfsPath)
{
    private const string Module = "xen-blkback";
    private const int MaxUnbindAttempts = 1000;
    private const int UnbindRetryDelayMs = 2;

    /// <summary>
    /// Loads the module, unless it is loaded. Call it before any device is connected: a module that is loaded later
    /// claims connected devices, fails to bind their ports, and closes them under the guest. Ignores failures.
    /// </summary>
    public void LoadEarly()
    {
        if (!Directory.Exists(Path.Combine(sysfsPath, "bus/xen-backend"))
            || Directory.Exists(Path.Combine(sysfsPath, "bus/xen-backend/drivers/vbd")))
        {
            return;
        }

        try
        {
            using Process modprobe = Process.Start(new ProcessStartInfo("modprobe", ["-q", Module]))!;
            modprobe.WaitForExit();
        }
        catch (Win32Exception)
        {
            // No modprobe, so nothing loads modules later either.
        }
    }

    /// <summary>True if the kernel's driver has the device.</summary>
    public bool Holds(VbdAddress address) => Directory.Exists(DriverOf(address));

    /// <summary>Unbinds a device from the kernel's driver. Returns false if it was not bound.</summary>
    /// <exception cref="IOException">The kernel refused.</exception>
    public bool Release(VbdAddress address)
    {
        for (int attempt = 1; Holds(address); attempt++)
        {
            try
            {
                using FileStream unbind =
                    new(Path.Combine(DriverOf(address), "unbind"), FileMode.Open, FileAccess.Write);
                unbind.Write(System.Text.Encoding.ASCII.GetBytes(address.KernelName));
                return true;
            }
            catch (Exception failure) when (
                failure is FileNotFoundException or DirectoryNotFoundException && attempt < MaxUnbindAttempts)
            {
                // While the module is being loaded it has devices already, but this file not yet.
                Thread.Sleep(UnbindRetryDelayMs);
            }
        }

        return false;
    }

    private string DriverOf(VbdAddress address) =>
        Path.Combine(sysfsPath, "bus/xen-backend/devices", address.KernelName, "driver");
}
