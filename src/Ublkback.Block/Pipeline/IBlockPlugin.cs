namespace Ublkback.Block;

/// <summary>
/// What an assembly in the folder of plugins has a public class of, with a constructor without parameters. Made once,
/// when the daemon starts.
/// </summary>
public interface IBlockPlugin
{
    /// <summary>Adds the plugin's hooks and images, whose names must be new.</summary>
    void Register(BlockCatalog catalog);
}
