using System.Reflection;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Mono.Unix.Native;

namespace Ublkback.Linux.Kernel;

/// <summary>
/// Loads Mono.Posix's native helper from a memory file. The single executable would otherwise unpack it into a
/// temporary folder, which fails under a hotplug script with HOME unset and a read-only root.
/// </summary>
public static class MonoPosixHelper
{
    private const string ResourceName = "libMonoPosixHelper.so";

    private static readonly Lazy<nint> Handle = new(Load);

    private static int _isRegistered;

    /// <summary>
    /// Sees to it that the helper is found. Happens by itself when anything of this room is used; a program that uses
    /// Mono.Posix before that calls it first. Any thread, any number of times.
    /// </summary>
#pragma warning disable CA2255 // Mono.Posix must find its helper whoever uses it first
    [ModuleInitializer]
    public static void Register()
#pragma warning restore CA2255
    {
        if (Interlocked.Exchange(ref _isRegistered, 1) != 0) return;
        NativeLibrary.SetDllImportResolver(typeof(Syscall).Assembly, static (name, _, _) =>
            name.Contains("MonoPosixHelper", StringComparison.Ordinal) ? Handle.Value : 0);
    }

    private static nint Load()
    {
        using Stream library = Assembly.GetExecutingAssembly().GetManifestResourceStream(ResourceName)
            ?? throw new InvalidOperationException($"the resource {ResourceName} is missing from the build");
        using MemoryFile file = MemoryFile.Create("mono-posix-helper");
        using (FileStream copy = new(file.Descriptor.DevicePath, FileMode.Open, FileAccess.Write))
            library.CopyTo(copy);
        return NativeLibrary.Load(file.Descriptor.DevicePath);
    }
}
