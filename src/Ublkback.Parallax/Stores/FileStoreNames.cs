using System.Globalization;
using Ublkback.Block;
using Ublkback.Parallax.Containers;
using Ublkback.Parallax.Format;

namespace Ublkback.Parallax.Stores;

/// <summary>
/// The names of the VDIs in a folder: symbolic links in <c>names</c>, and again in <c>copies/names</c>. A link that is
/// lost or changed is found by the other one, and by the name in the VDI's superblock. Any thread; blocks it.
/// </summary>
/// <remarks>
/// A new name is added to <c>names</c> first, and a deleted one is removed from there last. So after a crash only the
/// copy may lack a name.
/// </remarks>
/// <param name="folder">The folder of the store.</param>
/// <param name="readName">Returns the name that the superblock of a VDI has; null if it cannot be read.</param>
internal sealed class FileStoreNames(string folder, Func<uint, string?> readName)
{
    private readonly string _links = Path.Combine(folder, "names");
    private readonly string _copies = Path.Combine(folder, "copies", "names");

    /// <summary>All names, in order.</summary>
    public IReadOnlyList<string> All =>
        [.. NamesIn(_links).Union(NamesIn(_copies)).Order(StringComparer.Ordinal)];

    /// <summary>The paths of what is no link, or has no name that a VDI may have.</summary>
    public IEnumerable<string> Strays => EntriesIn(_links).Concat(EntriesIn(_copies))
        .Where(entry => !IsName(entry)).Select(entry => entry.FullName).Order(StringComparer.Ordinal);

    /// <summary>The numbers of the VDIs that have names.</summary>
    public IEnumerable<uint> Targets =>
        All.SelectMany(name => new[] { Read(_links, name), Read(_copies, name) }).OfType<uint>();

    /// <summary>True if a name is taken.</summary>
    public bool Has(string name) => Read(_links, name) is not null || Read(_copies, name) is not null;

    /// <summary>Returns the number of the VDI of a name.</summary>
    /// <exception cref="TargetException">There is none, or it is not known which.</exception>
    public uint Find(string name)
    {
        uint? link = Read(_links, VdiName.Check(name)), copy = Read(_copies, name);
        if ((link ?? copy) is not uint vdi) throw new NoSuchVdiException(name, folder);
        string path = Path.Combine(_links, name);
        if (vdi == 0)
            throw new TargetException(
                $"{path} does not point to the file of a VDI: it is damaged", "run 'ublkback vdi fsck --repair'");
        if (copy is not null && copy != vdi)
            throw new TargetException(
                $"{path} points to VDI {vdi:x6} and its copy to VDI {copy:x6}: one of them is damaged",
                "run 'ublkback vdi fsck --repair'");
        return readName(vdi) is not string called || called == name
            ? vdi
            : throw new TargetException(
                $"{path} points to VDI {vdi:x6}, which is called {called}: the link is damaged",
                "point it to the right file in the folder vdi, or remove it");
    }

    /// <summary>Adds a name.</summary>
    public void Add(string name, uint vdi)
    {
        Link(_links, name, vdi);
        Link(_copies, name, vdi);
    }

    /// <summary>Removes what there is of a name that could not be added.</summary>
    public void TryRemove(string name)
    {
        try
        {
            Remove(name);
        }
        catch (Exception failure) when (failure is IOException or UnauthorizedAccessException)
        {
            // The storage fails: fsck finds a link that is left.
        }
    }

    /// <summary>Removes a name.</summary>
    public void Remove(string name)
    {
        foreach (string links in new[] { _copies, _links }.Where(Directory.Exists))
        {
            File.Delete(Path.Combine(links, name));
            StoreFiles.Sync(links);
        }
    }

    /// <summary>Compares the two links of each name, and makes them the same again if asked.</summary>
    public void Check(Action<string> onFault, bool repairs)
    {
        foreach (string name in All)
        {
            uint? link = Read(_links, name), copy = Read(_copies, name);
            if (link == copy && link is not null and not 0) continue;
            if (link is null && copy is null) continue; // not a link
            uint[] candidates = [.. new[] { link, copy }.OfType<uint>().Where(vdi => vdi != 0)];
            uint? right = candidates is [uint only]
                ? only
                : candidates.Cast<uint?>().FirstOrDefault(vdi => readName(vdi!.Value) == name);
            string remedy = (repairs, right) switch
            {
                (_, null) => $"nothing says which is right: point {Path.Combine(_links, name)} to its file in vdi",
                (true, _) => "repaired",
                _ => "run 'ublkback vdi fsck --repair'",
            };
            onFault($"the links names/{name} and copies/names/{name} in {folder} differ, or one is missing: {remedy}");
            if (!repairs || right is not uint vdi) continue;
            if (link != vdi) Replace(_links, name, vdi);
            if (copy != vdi) Replace(_copies, name, vdi);
        }
    }

    private static void Replace(string links, string name, uint vdi)
    {
        if (Directory.Exists(links)) File.Delete(Path.Combine(links, name));
        Link(links, name, vdi);
    }

    private static void Link(string links, string name, uint vdi)
    {
        string up = Path.GetFileName(Path.GetDirectoryName(links)) == "copies" ? Path.Combine("..", "..") : "..";
        Directory.CreateDirectory(
            links, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        File.CreateSymbolicLink(
            Path.Combine(links, name),
            Path.Combine(up, "vdi", string.Create(CultureInfo.InvariantCulture, $"{vdi:x6}")));
        StoreFiles.Sync(links);
    }

    // Null if there is no link, 0 if it does not point to a VDI.
    private static uint? Read(string links, string name)
    {
        if (new FileInfo(Path.Combine(links, name)).LinkTarget is not string target) return null;
        return uint.TryParse(
            Path.GetFileName(target), NumberStyles.HexNumber, CultureInfo.InvariantCulture, out uint vdi)
            && vdi <= BlockAddress.MaxVdi ? vdi : 0;
    }

    private static IEnumerable<string> NamesIn(string links) =>
        EntriesIn(links).Where(IsName).Select(entry => entry.Name);

    private static IEnumerable<FileSystemInfo> EntriesIn(string links) =>
        Directory.Exists(links) ? new DirectoryInfo(links).EnumerateFileSystemInfos() : [];

    private static bool IsName(FileSystemInfo entry) => entry.LinkTarget is not null && VdiName.IsOne(entry.Name);
}
