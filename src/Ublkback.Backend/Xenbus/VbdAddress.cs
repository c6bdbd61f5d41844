using System.Globalization;

namespace Ublkback.Backend.Xenbus;

/// <summary>Names a vbd: its kind of backend directory, its frontend's domain and its device number.</summary>
/// <param name="Kind"><c>vbd</c> or <c>vbd3</c> (libxl's backendtype=tap).</param>
/// <param name="Domid">The frontend's domain.</param>
/// <param name="DeviceId">The virtual device number, for instance 51712 for xvda.</param>
public readonly record struct VbdAddress(string Kind, ushort Domid, int DeviceId)
{
    /// <summary>The kinds of backend directories that are watched.</summary>
    public static IReadOnlyList<string> Kinds { get; } = ["vbd", "vbd3"];

    /// <summary>Path below the home of the backend's domain.</summary>
    public string RelativePath => string.Create(CultureInfo.InvariantCulture, $"backend/{Kind}/{Domid}/{DeviceId}");

    /// <summary>Name of the kernel's xenbus device.</summary>
    public string KernelName => string.Create(CultureInfo.InvariantCulture, $"{Kind}-{Domid}-{DeviceId}");

    /// <summary>A number that no other disk on this host has.</summary>
    public long DiskId => ((long)Domid << 32) | (uint)DeviceId;

    /// <summary>Reads "vbd/1/51712", perhaps with more below it.</summary>
    public static bool TryParse(string path, out VbdAddress address)
    {
        address = default;
        if (path.Split('/') is not [string kind, string domid, string device, ..] || !Kinds.Contains(kind))
            return false;
        if (!ushort.TryParse(domid, NumberStyles.None, CultureInfo.InvariantCulture, out ushort domain)) return false;
        if (!int.TryParse(device, NumberStyles.None, CultureInfo.InvariantCulture, out int number)) return false;
        address = new VbdAddress(kind, domain, number);
        return true;
    }

    /// <summary>As log lines show it.</summary>
    public override string ToString() =>
        string.Create(CultureInfo.InvariantCulture, $"dom{Domid} {DeviceName} ({Kind} {DeviceId})");

    /// <summary>
    /// The name that Linux guests give the device: xvda for 202:0, with the partition if there is one.
    /// </summary>
    public string DeviceName
    {
        get
        {
            // xen/docs/man/xen-vbd-interface.7: bit 28 extended (disk
            // << 8 | partition), else 202 << 8 | disk << 4 | partition.
            (int disk, int partition) = (DeviceId >> 28) == 1
                ? ((DeviceId & 0xFFFFFFF) >> 8, DeviceId & 0xFF)
                : (DeviceId >> 8) == 202
                    ? ((DeviceId & 0xFF) >> 4, DeviceId & 0xF)
                    : (-1, 0);
            if (disk < 0) return DeviceId.ToString(CultureInfo.InvariantCulture);
            string letters = "";
            for (int rest = disk; rest >= 0; rest = (rest / 26) - 1) letters = (char)('a' + (rest % 26)) + letters;
            return partition == 0
                ? $"xvd{letters}"
                : string.Create(CultureInfo.InvariantCulture, $"xvd{letters}{partition}");
        }
    }
}
