using Ublkback.Backend.Xenbus;
using Ublkback.Linux.Kernel;

namespace Ublkback.Backend.Journals;

/// <summary>
/// The journals of the connected vbds, a file for each, in a directory that survives the daemon but not a reboot.
/// Every method blocks; one vbd's journal is used by that vbd's loop only.
/// </summary>
public sealed class JournalDirectory(string path)
{
    private const string Prefix = "journal-";

    /// <summary>The directory. Images keep their own logs of changes in flight there.</summary>
    public string Path => path;

    /// <summary>Creates the journal of a vbd that connects.</summary>
    /// <exception cref="LinuxException">There is no space for it.</exception>
    public VbdJournal Create(VbdAddress address, JournalIdentity identity)
    {
        Directory.CreateDirectory(path);
        return VbdJournal.Create(FileOf(address), identity);
    }

    /// <summary>Opens the journal that an earlier daemon left. Returns null if there is none.</summary>
    /// <exception cref="JournalException">The journal cannot be used.</exception>
    public VbdJournal? Open(VbdAddress address) => VbdJournal.Open(FileOf(address));

    /// <summary>True if the vbd has a journal.</summary>
    public bool Has(VbdAddress address) => File.Exists(FileOf(address));

    /// <summary>Removes the journal of a vbd that is not connected, if there is one.</summary>
    public void Remove(VbdAddress address)
    {
        if (Directory.Exists(path)) File.Delete(FileOf(address));
    }

    /// <summary>Removes the journals of all vbds but these.</summary>
    public void KeepOnly(IReadOnlyCollection<VbdAddress> addresses)
    {
        if (!Directory.Exists(path)) return;
        HashSet<string> kept = [.. addresses.Select(FileOf)];
        foreach (string file in Directory.EnumerateFiles(path, Prefix + "*"))
        {
            if (!kept.Contains(file)) File.Delete(file);
        }
    }

    private string FileOf(VbdAddress address) => System.IO.Path.Combine(path, Prefix + address.KernelName);
}
