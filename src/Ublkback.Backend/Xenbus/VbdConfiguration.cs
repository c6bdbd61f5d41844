using System.Globalization;
using Ublkback.XenStore;

namespace Ublkback.Backend.Xenbus;

/// <summary>What the toolstack wrote about a vbd into its backend directory.</summary>
/// <param name="FrontendPath">The frontend's directory.</param>
/// <param name="Target">What to serve: <c>params</c>, verbatim.</param>
/// <param name="Mode"><c>r</c>, <c>w</c>, or <c>w!</c> (no lock).</param>
/// <param name="IsCdRom">Whether the guest sees a CD-ROM.</param>
/// <param name="IsRemovable">Whether the medium can be removed.</param>
/// <param name="AllowsDiscard">Whether the guest may free sectors (<c>discard-enable</c>).</param>
/// <param name="SharingGroup">The virtual machine's own path, the same for all its disks; null when unknown.</param>
public sealed record VbdConfiguration(
    string FrontendPath, string Target, string Mode, bool IsCdRom, bool IsRemovable, bool AllowsDiscard,
    string? SharingGroup)
{
    /// <summary>Name of the hotplug script that makes a device ours.</summary>
    public const string ScriptName = "block-ublkback";

    /// <summary>Whether the guest may not write.</summary>
    public bool IsReadOnly => !Mode.StartsWith('w');

    /// <summary>The node <c>info</c> (VDISK_* of blkif.h).</summary>
    public int Info => (IsCdRom ? 1 : 0) | (IsRemovable ? 2 : 0) | (IsReadOnly ? 4 : 0);

    /// <summary>
    /// Reads a backend directory; null when it is not there, not ours, or has no state: the toolstack has not written
    /// all of it yet, or removes it. A device is ours when its hotplug script is.
    /// </summary>
    /// <exception cref="FrontendException">The frontend's path is not in the frontend's domain.</exception>
    public static async Task<VbdConfiguration?> ReadAsync(IXenStore store, string path, VbdAddress address)
    {
        string? script = await store.ReadAsync($"{path}/script").ConfigureAwait(false);
        if (Path.GetFileName(script) != ScriptName) return null;
        if (await store.ReadAsync($"{path}/state").ConfigureAwait(false) is null) return null;
        string? frontend = await store.ReadAsync($"{path}/frontend").ConfigureAwait(false);
        if (frontend is null) return null;
        string domain = string.Create(CultureInfo.InvariantCulture, $"/local/domain/{address.Domid}");
        if (!frontend.StartsWith(domain + "/", StringComparison.Ordinal))
            throw new FrontendException(
                $"the frontend's directory {FrontendParameters.Quote(frontend)} is not in domain {address.Domid}");

        return new VbdConfiguration(
            frontend,
            await store.ReadAsync($"{path}/params").ConfigureAwait(false) ?? "",
            await store.ReadAsync($"{path}/mode").ConfigureAwait(false) ?? "r",
            await store.ReadAsync($"{path}/device-type").ConfigureAwait(false) == "cdrom",
            await store.ReadAsync($"{path}/removable").ConfigureAwait(false) == "1",
            await store.ReadAsync($"{path}/discard-enable").ConfigureAwait(false) != "0",
            await store.ReadAsync($"{domain}/vm").ConfigureAwait(false));
    }
}
