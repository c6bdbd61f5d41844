using Ublkback.Backend.Connections;
using Ublkback.Backend.Xenbus;
using Ublkback.Block;
using Ublkback.Nbd.Protocol;

namespace Ublkback.Backend.Vbds;

/// <summary>
/// Answers the hotplug script: opens the target of a new device, writes the nodes that the toolstack waits for, and
/// waits until the image of a removed device is closed. Any thread.
/// </summary>
public sealed class Hotplug(BackendServices services, VbdDirectory directory)
{
    private static readonly TimeSpan RemovePatience = TimeSpan.FromSeconds(5); // xl waits for its scripts for 40 s

    /// <summary>
    /// Opens the target of a device and writes <c>hotplug-status</c>, and <c>hotplug-error</c> if the target cannot be
    /// opened. Returns that error, or null.
    /// </summary>
    /// <param name="xenbusPath">The script's XENBUS_PATH, such as <c>backend/vbd/1/51712</c>.</param>
    public async Task<string?> AddAsync(string xenbusPath)
    {
        if (!TryParse(xenbusPath, out VbdAddress address)) return DescribeBadPath(xenbusPath);
        string path = $"{services.Home}/{xenbusPath}";
        try
        {
            await directory.LookAtAsync(address).ConfigureAwait(false);
            Vbd vbd = directory.Find(address)
                ?? throw new TargetException(
                    $"the device is not ublkback's: its script node does not name {VbdConfiguration.ScriptName}, "
                    + "or it has no state");
            vbd = await CheckAsync(vbd).ConfigureAwait(false);
            if (DevicePathOf(vbd) is string device)
                await services.Store.WriteAsync($"{path}/physical-device-path", device).ConfigureAwait(false);
            await services.Store.WriteAsync($"{path}/hotplug-status", "connected").ConfigureAwait(false);
            return null;
        }
        catch (TargetException failure)
        {
            await services.Store.WriteAsync($"{path}/hotplug-error", failure.Message).ConfigureAwait(false);
            await services.Store.WriteAsync($"{path}/hotplug-status", "error").ConfigureAwait(false);
            return failure.Message;
        }
    }

    // The vbd may be replaced meanwhile, if the toolstack changes its nodes.
    private async Task<Vbd> CheckAsync(Vbd vbd)
    {
        while (true)
        {
            try
            {
                await vbd.CheckTargetAsync().ConfigureAwait(false);
                return vbd;
            }
            catch (TargetException) when (directory.Find(vbd.Address) is Vbd next && next != vbd)
            {
                vbd = next;
            }
        }
    }

    /// <summary>
    /// Waits until the image of a device that the toolstack removes is closed, so that other programs can open it.
    /// Returns an error, or null. A device that is unknown or gone holds nothing.
    /// </summary>
    /// <param name="xenbusPath">The script's XENBUS_PATH, such as <c>backend/vbd/1/51712</c>.</param>
    public async Task<string?> RemoveAsync(string xenbusPath)
    {
        if (!TryParse(xenbusPath, out VbdAddress address)) return DescribeBadPath(xenbusPath);
        if (directory.Find(address) is not Vbd vbd) return null;
        try
        {
            await vbd.LeaveAsync().WaitAsync(RemovePatience).ConfigureAwait(false);
            return null;
        }
        catch (TimeoutException)
        {
            return $"{vbd.Target} of {address} is still open: the toolstack has not closed the device, or its guest or "
                + "its storage does not answer; the daemon closes it when they do";
        }
    }

    private static bool TryParse(string xenbusPath, out VbdAddress address)
    {
        const string Prefix = "backend/";
        address = default;
        return xenbusPath.StartsWith(Prefix, StringComparison.Ordinal)
            && VbdAddress.TryParse(xenbusPath[Prefix.Length..], out address)
            && address.RelativePath == xenbusPath;
    }

    private static string DescribeBadPath(string xenbusPath) =>
        $"XENBUS_PATH is '{xenbusPath}', not the directory of a block backend such as backend/vbd/1/51712";

    // The path that libxl passes to QEMU for an HVM guest: for vbd a value of QEMU's option file=, for vbd3 the path of
    // an NBD socket.
    private string? DevicePathOf(Vbd vbd)
    {
        bool isTap = vbd.Address.Kind == "vbd3";
        BlockTarget target = BlockTarget.Parse(vbd.Target);
        if (!isTap && target.Hooks.Count == 0 && services.Catalog.Find(target).FindDevice(target) is string device)
            return device;

        return vbd.QemuSocket is not string socket ? null : isTap ? socket : NbdUri.OfSocket(socket);
    }
}
