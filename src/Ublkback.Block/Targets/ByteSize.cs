using System.Globalization;

namespace Ublkback.Block;

/// <summary>Sizes as users read and write them.</summary>
public static class ByteSize
{
    /// <summary>Reads a size such as 20G, in bytes.</summary>
    /// <exception cref="TargetException">The text is not a size.</exception>
    public static long Read(string text) =>
        new HookTarget("", new Dictionary<string, string> { ["size"] = text }).GetSize("size")!.Value;

    /// <summary>Writes a size, such as 1.5 GiB.</summary>
    public static string Format(ulong bytes) => bytes switch
    {
        < 1 << 10 => string.Create(CultureInfo.InvariantCulture, $"{bytes} B"),
        < 1 << 20 => string.Create(CultureInfo.InvariantCulture, $"{bytes / 1024.0:F1} KiB"),
        < 1 << 30 => string.Create(CultureInfo.InvariantCulture, $"{bytes / 1048576.0:F1} MiB"),
        < 1L << 40 => string.Create(CultureInfo.InvariantCulture, $"{bytes / 1073741824.0:F1} GiB"),
        _ => string.Create(CultureInfo.InvariantCulture, $"{bytes / 1099511627776.0:F1} TiB"),
    };
}
