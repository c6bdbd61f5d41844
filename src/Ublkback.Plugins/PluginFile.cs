using System.Reflection;
using System.Reflection.Metadata;
using System.Reflection.PortableExecutable;
using Ublkback.Block;
using TargetException = Ublkback.Block.TargetException;

namespace Ublkback.Plugins;

/// <summary>A file in the folder of plugins.</summary>
internal static class PluginFile
{
    /// <summary>The assembly that plugins and the daemon share.</summary>
    public const string Library = "Ublkback.Block";

    private static readonly Version Ours = typeof(IBlockPlugin).Assembly.GetName().Version!;

    /// <summary>Loads the plugin in a file; null when it is none but something that a plugin depends on.</summary>
    /// <exception cref="TargetException">It cannot be a plugin of this daemon.</exception>
    public static IBlockPlugin? Load(string path)
    {
        CheckAccess(path);
        if (FindVersion(path) is not Version version) return null;
        if (!IsCompatible(version, Ours))
            throw new TargetException(
                $"it is made for {Library} {version.ToString(3)}, and this is {Ours.ToString(3)}: build it anew");
        Assembly assembly = new PluginContext(path).LoadFromAssemblyPath(path);
        Type[] types = [.. assembly.GetExportedTypes()
            .Where(type => type.IsAssignableTo(typeof(IBlockPlugin)) && !type.IsAbstract)];
        return types.Length == 1
            ? (IBlockPlugin)Activator.CreateInstance(types[0])!
            : throw new TargetException(
                $"it has {types.Length} public classes of {nameof(IBlockPlugin)}, and needs one");
    }

    /// <summary>
    /// Whether what was built against one version of the library runs with another: the same major, or while that is 0
    /// the same minor, number, and nothing newer.
    /// </summary>
    public static bool IsCompatible(Version built, Version ours) =>
        built.Major == ours.Major && (ours.Major == 0 ? built.Minor == ours.Minor : built.Minor <= ours.Minor);

    /// <summary>Refuses what others than its owner may write: its code would run as the daemon.</summary>
    /// <exception cref="TargetException">Others may write it.</exception>
    public static void CheckAccess(string path)
    {
        if ((File.GetUnixFileMode(path) & (UnixFileMode.GroupWrite | UnixFileMode.OtherWrite)) != 0)
            throw new TargetException($"others than its owner may write it: chmod go-w {path}");
    }

    private static Version? FindVersion(string path)
    {
        using FileStream file = File.OpenRead(path);
        using PEReader reader = new(file);
        if (!reader.HasMetadata) return null;
        MetadataReader metadata = reader.GetMetadataReader();
        foreach (AssemblyReferenceHandle handle in metadata.AssemblyReferences)
        {
            AssemblyReference reference = metadata.GetAssemblyReference(handle);
            if (metadata.StringComparer.Equals(reference.Name, Library)) return reference.Version;
        }

        return null;
    }
}
