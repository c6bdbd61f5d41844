namespace Ublkback.Tests.House;

/// <summary>
/// The order of the house, from the bottom to the top: rooms (projects of <c>src</c>), and the folders of each. Folders
/// are namespaces. A file may use its own folder and those before it; a project's own files come after its folders.
/// </summary>
internal static class HousePlan
{
    /// <summary>The rooms. A room may reference rooms before it only.</summary>
    public static readonly string[] Rooms =
    [
        "Ublkback.Block", "Ublkback.Hooks", "Ublkback.Plugins", "Ublkback.XenStore", "Ublkback.Blkif",
        "Ublkback.Linux", "Ublkback.Xen", "Ublkback.Images", "Ublkback.Nbd", "Ublkback.Rados", "Ublkback.Parallax",
        "Ublkback.Backend", "Ublkback.EmulatedHost", "Ublkback",
    ];

    /// <summary>Rooms that may have <c>unsafe</c> code: those that deal with memory and devices.</summary>
    public static readonly string[] UnsafeRooms =
        ["Ublkback.Linux", "Ublkback.Xen", "Ublkback.Blkif", "Ublkback.Rados", "Ublkback.EmulatedHost"];

    /// <summary>Rooms whose folders are no namespaces, since others name their types: plugins.</summary>
    public static readonly string[] OneNamespace = ["Ublkback.Block"];

    /// <summary>The folders of the projects that have some; <c>""</c> is the project's own.</summary>
    public static readonly Dictionary<string, string[]> Folders = new()
    {
        ["Ublkback.Block"] = ["Loop", "Targets", "Seam", "Images", "Pipeline"],
        ["Ublkback.Hooks"] = ["Faults", "Throttle", "Crypt", "Trace", ""],
        ["Ublkback.Linux"] = ["Kernel", "Workers", "Files", "Sockets", "Messages"],
        ["Ublkback.Images"] = ["Common", "Raw", "Qcow2/Format", "Qcow2/Metadata", "Qcow2/Clusters", "Qcow2"],
        ["Ublkback.Nbd"] = ["Protocol", "Client", "Server"],
        ["Ublkback.Rados"] = ["Bindings", "Pools", "Locks", "Rbd"],
        ["Ublkback.Parallax"] =
            ["Format", "Requests", "Containers", "Stores", "Map", "Log", "Disk", "Collect", "Handlers", "Admin"],
        ["Ublkback.Backend"] =
            ["Xenbus", "Report", "Journals", "Requests", "Grants", "Rings", "Connections", "Vbds"],
        ["Ublkback.EmulatedHost"] = ["Hypervisor", "Store", "Frontend", ""],
        ["Ublkback"] =
        [
            "Hosting", "Control", "Commands/Disks", "Service", "ImageTools", "Replay", "Demo", "Bench", "Commands",
            "Commands/Images", "Commands/Vdis", "",
        ],
        ["Ublkback.HostTests"] = ["Fixtures", "Model", "", "Guests", "Storage", "Formats", "Extensions"],
        ["Ublkback.Tests"] =
        [
            "House", "Backend", "Blkif", "Block", "Control", "Hooks", "Linux", "Images", "Images/Qcow2", "Nbd",
            "Parallax", "Plugins", "Rados", "Xen", "XenStore", "",
        ],
    };
}
