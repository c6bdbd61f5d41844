using System.Diagnostics;
using System.Reflection;
using System.Runtime.Loader;

namespace Ublkback.Plugins;

/// <summary>
/// The assemblies of one plugin. What it depends on is looked for beside it first, so plugins may have different
/// versions of a library; only <c>Ublkback.Block</c> is the daemon's, or its types would not be ours.
/// </summary>
internal sealed class PluginContext(string path) : AssemblyLoadContext(Path.GetFileNameWithoutExtension(path))
{
    protected override Assembly? Load(AssemblyName assemblyName)
    {
        if (assemblyName.Name == PluginFile.Library) return null;
        string file = Path.Combine(Path.GetDirectoryName(path)!, $"{assemblyName.Name}.dll");
        return File.Exists(file) ? LoadFromAssemblyPath(file) : null;
    }

    /// <summary>Whether an exception came out of code of a plugin.</summary>
    public static bool IsBehind(Exception failure) => new StackTrace(failure).GetFrames().Any(frame =>
        frame.GetMethod() is MethodBase method && GetLoadContext(method.Module.Assembly) is PluginContext);
}
