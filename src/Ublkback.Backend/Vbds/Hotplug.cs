using Ublkback.Backend.Connections;
using Ublkback.Backend.Xenbus;
using Ublkback.Block;
using Ublkback.Linux.Kernel;
using Ublkback.Nbd.Protocol;

namespace Ublkback.Backend.Vbds;

/// <summary>Answers the hotplug script: is the target good, and what should the toolstack know?</summary>
public sealed class Hotplug(BackendServices services, VbdDirectory directory)
{
    /// <summary>
    /// Checks the target of a device and tells the toolstack through its nodes: <c>hotplug-status</c>, and
    /// <c>hotplug-error</c> when it cannot be served. Returns that error, or null.
    /// </summary>
    /// <param name="xenbusPath">The script's XENBUS_PATH, such as <c>backend/vbd/1/51712</c>.</param>
    public async Task<string?> AddAsync(string xenbusPath)
    {
        const string Prefix = "backend/";
        if (!xenbusPath.StartsWith(Prefix, StringComparison.Ordinal)
            || !VbdAddress.TryParse(xenbusPath[Prefix.Length..], out VbdAddress address)
            || address.RelativePath != xenbusPath)
        {
            return $"XENBUS_PATH is '{xenbusPath}', not the directory of a block backend such as backend/vbd/1/51712";
        }

        string path = $"{services.Home}/{xenbusPath}";
        try
        {
            await directory.LookAtAsync(address).ConfigureAwait(false);
            Vbd vbd = directory.Find(address)
                ?? throw new TargetException(
                    $"the device is not ublkback's: its script node does not name {BackendServices.ScriptName}, "
                    + "or it has no state");
            await vbd.CheckTargetAsync().ConfigureAwait(false);
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

    // What QEMU opens for an HVM guest's own view of the disk: on vbd as its option file=, on vbd3 the path of an NBD
    // socket.
    private static string? DevicePathOf(Vbd vbd)
    {
        bool isTap = vbd.Address.Kind == "vbd3";
        BlockTarget target = BlockTarget.Parse(vbd.Target);
        if (!isTap && target.Scheme == BlockTarget.RawScheme && target.Hooks.Count == 0)
        {
            using FileDescriptor place = FileDescriptor.OpenPath(target.Location);
            if (FileStatus.Of(place).Kind == FileKind.BlockDevice) return target.Location;
        }

        return vbd.EmulatorSocket is not string socket ? null : isTap ? socket : NbdUri.OfSocket(socket);
    }
}
