using System.CommandLine;

namespace Ublkback.Hosting;

/// <summary>Options that several commands have.</summary>
internal static class CommonOptions
{
    public static Option<string> Host() => new("--host")
    {
        Description = "The Xen host: 'real', or the directory of an emulated one (see xen-host). Default: "
            + "$UBLKBACK_HOST, else real.",
        DefaultValueFactory = _ => HostEnvironment.Default,
    };

    public static Option<bool> Json() => new("--json") { Description = "Print JSON." };
}
