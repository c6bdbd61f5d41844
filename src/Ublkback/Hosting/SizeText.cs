using Ublkback.Block;

namespace Ublkback.Hosting;

/// <summary>Reads sizes of command lines.</summary>
internal static class SizeText
{
    /// <summary>Reads a size such as 20G, in bytes.</summary>
    /// <exception cref="TargetException">The text is not a size.</exception>
    public static long Read(string text) =>
        new HookTarget("", new Dictionary<string, string> { ["size"] = text }).GetSize("size")!.Value;
}
